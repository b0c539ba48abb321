package streamforge.bench;

/** A rule that an order of a user completed. */
public class Alert {
  public String rule;
  public String userId;
  public String orderId;

  public Alert() {}

  public Alert(String rule, String userId, String orderId) {
    this.rule = rule;
    this.userId = userId;
    this.orderId = orderId;
  }

  @Override
  public String toString() {
    return rule + ' ' + userId + ' ' + orderId;
  }
}
