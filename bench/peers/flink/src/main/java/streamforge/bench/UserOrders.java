package streamforge.bench;

import java.util.Map;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;

/** The state of one user. */
public class UserOrders {
  static final TypeInformation<UserOrders> TYPE =
      Types.POJO(
          UserOrders.class,
          Map.of(
              "created", Timeline.TYPE,
              "highValue", Timeline.TYPE,
              "cancelled", Timeline.TYPE,
              "newest", Types.LONG));

  public Timeline created = new Timeline();
  public Timeline highValue = new Timeline();
  public Timeline cancelled = new Timeline();
  public long newest;

  public UserOrders() {}

  void moveTo(long eventTime) {
    if (eventTime > newest) {
      newest = eventTime;
      long oldest = eventTime - Rules.HORIZON_MS;
      created.forgetBefore(oldest);
      highValue.forgetBefore(oldest);
      cancelled.forgetBefore(oldest);
    }
  }
}
