package streamforge.bench;

import java.time.Duration;

/** The bounds of the five rules. Spans are inclusive, amounts are not. */
final class Rules {
  static final String HIGH_VALUE_BURST = "HIGH_VALUE_BURST";
  static final String RAPID_ORDERS = "RAPID_ORDERS";
  static final String HIGH_VALUE_FIRST_ORDER = "HIGH_VALUE_FIRST_ORDER";
  static final String LOCATION_ANOMALY = "LOCATION_ANOMALY";
  static final String SUSPICIOUS_PATTERN = "SUSPICIOUS_PATTERN";

  static final long HIGH_VALUE_MINOR = 500_000;
  static final int COUNT = 3;
  static final long BURST_MS = Duration.ofMinutes(5).toMillis();
  static final long LOCATION_MS = Duration.ofMinutes(10).toMillis();
  static final long CANCELLED_MS = Duration.ofMinutes(30).toMillis();

  static final Duration OUT_OF_ORDERNESS = Duration.ofSeconds(10);
  static final long LATENESS_MS = Duration.ofMinutes(10).toMillis();

  /** The longest span and what may still arrive: older orders cannot matter any more. */
  static final long HORIZON_MS = CANCELLED_MS + LATENESS_MS + OUT_OF_ORDERNESS.toMillis();

  private Rules() {}
}
