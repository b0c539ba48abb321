package streamforge.bench;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.CheckpointListener;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Alerts on the order that completes a pattern of its user, also when an earlier order arrives after it: its followers
 * are looked at again, so an alert can be emitted twice. Alerts are identified by rule, user and order.
 */
public class FraudDetector extends KeyedProcessFunction<String, Order, Alert> implements CheckpointListener {
  private final boolean onlyHighValue;
  private transient ValueState<UserOrders> state;
  private transient Counter late;

  public FraudDetector(boolean onlyHighValue) {
    this.onlyHighValue = onlyHighValue;
  }

  @Override
  public void open(OpenContext context) {
    state = getRuntimeContext().getState(new ValueStateDescriptor<>("orders", UserOrders.TYPE));
    late = getRuntimeContext().getMetricGroup().counter("late");
  }

  @Override
  public void processElement(Order order, Context context, Collector<Alert> out) throws Exception {
    if (order.eventTime + Rules.LATENESS_MS < context.timerService().currentWatermark()) {
      late.inc();
      return;
    }
    UserOrders user = state.value();
    if (user == null) {
      user = new UserOrders();
      // One timer per user: when it fires too early it moves itself on.
      context.timerService().registerEventTimeTimer(order.eventTime + Rules.HORIZON_MS);
    }
    Timeline.Entry entry = new Timeline.Entry(order);
    if (order.cancelled) {
      count(user.cancelled, entry, Rules.CANCELLED_MS, Rules.SUSPICIOUS_PATTERN, order.userId, out);
    } else {
      if (!onlyHighValue) {
        int at = count(user.created, entry, Rules.BURST_MS, Rules.RAPID_ORDERS, order.userId, out);
        if (at >= 0) {
          locate(user.created, at, order.userId, out);
        }
      }
      if (order.isHighValue()) {
        count(user.highValue, entry, Rules.BURST_MS, Rules.HIGH_VALUE_BURST, order.userId, out);
        if (order.first && !onlyHighValue) {
          out.collect(new Alert(Rules.HIGH_VALUE_FIRST_ORDER, order.userId, order.orderId));
        }
      }
    }
    user.moveTo(order.eventTime);
    state.update(user);
  }

  @Override
  public void onTimer(long timestamp, OnTimerContext context, Collector<Alert> out) throws Exception {
    UserOrders user = state.value();
    if (user == null || user.newest + Rules.HORIZON_MS <= timestamp) {
      state.clear();
    } else {
      context.timerService().registerEventTimeTimer(user.newest + Rules.HORIZON_MS);
    }
  }

  @Override
  public void notifyCheckpointComplete(long checkpointId) {
    Progress.checkpoint(checkpointId);
  }

  /** Inserts an order and alerts on those that are now at least the third within the span. */
  private static int count(
      Timeline timeline, Timeline.Entry entry, long spanMs, String rule, String userId, Collector<Alert> out) {
    int at = timeline.insert(entry);
    if (at < 0) {
      return at;
    }
    // Further on, the same orders precede as before.
    int end = Math.min(at + Rules.COUNT, timeline.size());
    for (int i = at; i < end; i++) {
      if (timeline.completes(i, Rules.COUNT, spanMs)) {
        out.collect(new Alert(rule, userId, timeline.get(i).orderId));
      }
    }
    return at;
  }

  /** Alerts on orders from another region than an earlier one's; the order at {@code at} is new. */
  private static void locate(Timeline timeline, int at, String userId, Collector<Alert> out) {
    Timeline.Entry entry = timeline.get(at);
    for (int i = at - 1; i >= 0; i--) {
      Timeline.Entry earlier = timeline.get(i);
      if (earlier.eventTime < entry.eventTime - Rules.LOCATION_MS) {
        break;
      }
      if (!earlier.region.equals(entry.region)) {
        out.collect(new Alert(Rules.LOCATION_ANOMALY, userId, entry.orderId));
        break;
      }
    }
    for (int i = at + 1; i < timeline.size(); i++) {
      Timeline.Entry later = timeline.get(i);
      if (later.eventTime > entry.eventTime + Rules.LOCATION_MS) {
        break;
      }
      if (!later.region.equals(entry.region)) {
        out.collect(new Alert(Rules.LOCATION_ANOMALY, userId, later.orderId));
      }
    }
  }
}
