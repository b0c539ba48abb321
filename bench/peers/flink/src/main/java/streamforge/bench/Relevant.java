package streamforge.bench;

import org.apache.flink.api.common.accumulators.LongCounter;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFilterFunction;

/** Counts all orders and keeps those that the rules look at. */
public class Relevant extends RichFilterFunction<Order> {
  static final String EVENTS = "events";

  private final boolean onlyHighValue;
  private final LongCounter events = new LongCounter();

  public Relevant(boolean onlyHighValue) {
    this.onlyHighValue = onlyHighValue;
  }

  @Override
  public void open(OpenContext context) {
    getRuntimeContext().addAccumulator(EVENTS, events);
  }

  @Override
  public boolean filter(Order order) {
    events.add(1L);
    return onlyHighValue ? order.isHighValue() : order.created || order.cancelled;
  }
}
