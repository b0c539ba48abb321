package streamforge.bench;

import java.util.concurrent.atomic.AtomicLong;

/** Times of a run. Static, because the mini cluster lives in this JVM. */
final class Progress {
  private static volatile boolean started;
  private static final AtomicLong FIRST_READ_NS = new AtomicLong();
  private static final AtomicLong LAST_RESULT_NS = new AtomicLong();
  private static final AtomicLong LAST_CHECKPOINT = new AtomicLong();

  static void reading() {
    if (!started) {
      started = true;
      FIRST_READ_NS.compareAndSet(0, System.nanoTime());
    }
  }

  static void finished() {
    LAST_RESULT_NS.accumulateAndGet(System.nanoTime(), Math::max);
  }

  static void checkpoint(long id) {
    LAST_CHECKPOINT.accumulateAndGet(id, Math::max);
  }

  static double readSeconds() {
    return (LAST_RESULT_NS.get() - FIRST_READ_NS.get()) / 1e9;
  }

  static long checkpoints() {
    return LAST_CHECKPOINT.get();
  }

  private Progress() {}
}
