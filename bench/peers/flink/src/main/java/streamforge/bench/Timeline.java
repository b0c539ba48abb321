package streamforge.bench;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;

/** One user's orders of one kind, sorted by event time and order id. */
public class Timeline {

  /** One order on it. */
  public static class Entry implements Comparable<Entry> {
    public long eventTime;
    public String orderId;
    public String region;

    public Entry() {}

    Entry(Order order) {
      eventTime = order.eventTime;
      orderId = order.orderId;
      region = order.region;
    }

    @Override
    public int compareTo(Entry other) {
      int byTime = Long.compare(eventTime, other.eventTime);
      return byTime != 0 ? byTime : orderId.compareTo(other.orderId);
    }
  }

  /** Without it Flink would hand the list to Kryo. */
  static final TypeInformation<Timeline> TYPE =
      Types.POJO(Timeline.class, Map.of("entries", Types.LIST(Types.POJO(Entry.class))));

  // Most users have one or two orders within the horizon.
  public List<Entry> entries = new ArrayList<>(2);

  public Timeline() {}

  /** Puts an order in its place and returns the place, or -1 when it is there already. */
  int insert(Entry entry) {
    int at = entries.size();
    while (at > 0) {
      int order = entries.get(at - 1).compareTo(entry);
      if (order == 0) {
        return -1;
      }
      if (order < 0) {
        break;
      }
      at--;
    }
    entries.add(at, entry);
    return at;
  }

  int size() {
    return entries.size();
  }

  Entry get(int i) {
    return entries.get(i);
  }

  /** Whether the i-th order and those before it are at least {@code count} within {@code spanMs}. */
  boolean completes(int i, int count, long spanMs) {
    return i >= count - 1 && entries.get(i - count + 1).eventTime >= entries.get(i).eventTime - spanMs;
  }

  void forgetBefore(long eventTime) {
    int gone = 0;
    while (gone < entries.size() && entries.get(gone).eventTime < eventTime) {
      gone++;
    }
    if (gone > 0) {
      entries.subList(0, gone).clear();
    }
  }
}
