package streamforge.bench;

/** What travels to the rules: a Flink POJO with the needed fields of an order. */
public class Order {
  public String userId;
  public String orderId;
  public String region;
  public long eventTime;
  public long amountMinor;
  public boolean created;
  public boolean cancelled;
  public boolean first;

  public boolean isHighValue() {
    return created && amountMinor > Rules.HIGH_VALUE_MINOR;
  }
}
