package streamforge.bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.specific.SpecificDatumReader;
import org.apache.flink.api.common.serialization.DeserializationSchema.InitializationContext;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import streamforge.OrderEvent;
import streamforge.OrderStatus;

/** Confluent wire format to {@link Order}: magic byte, schema id, Avro in the writer's schema. */
public class OrderDeserializer implements KafkaRecordDeserializationSchema<Order> {
  private static final int HEADER_BYTES = 5;

  private final String registryUrl;
  private transient SchemaRegistry registry;
  private transient Map<Integer, SpecificDatumReader<OrderEvent>> readers;
  private transient BinaryDecoder decoder;
  private transient OrderEvent event;

  public OrderDeserializer(String registryUrl) {
    this.registryUrl = registryUrl;
  }

  @Override
  public void open(InitializationContext context) {
    registry = new SchemaRegistry(registryUrl);
    readers = new HashMap<>();
    event = new OrderEvent();
  }

  @Override
  public void deserialize(ConsumerRecord<byte[], byte[]> message, Collector<Order> out) throws IOException {
    Progress.reading();
    byte[] bytes = message.value();
    if (bytes.length < HEADER_BYTES || bytes[0] != 0) {
      throw new IOException("not in the Confluent wire format: offset " + message.offset());
    }
    int id = ByteBuffer.wrap(bytes).getInt(1);
    SpecificDatumReader<OrderEvent> reader = readers.get(id);
    if (reader == null) {
      reader = new SpecificDatumReader<>(registry.schema(id), OrderEvent.getClassSchema());
      readers.put(id, reader);
    }
    decoder = DecoderFactory.get().binaryDecoder(bytes, HEADER_BYTES, bytes.length - HEADER_BYTES, decoder);
    event = reader.read(event, decoder);
    Order order = new Order();
    order.userId = event.getUserId();
    order.orderId = event.getOrderId();
    order.region = event.getShippingRegion();
    order.eventTime = event.getEventTime();
    order.amountMinor = event.getTotalAmountMinor();
    order.created = event.getOrderStatus() == OrderStatus.CREATED;
    order.cancelled = event.getOrderStatus() == OrderStatus.CANCELLED;
    order.first = event.getIsFirstOrder();
    out.collect(order);
  }

  @Override
  public TypeInformation<Order> getProducedType() {
    return TypeInformation.of(Order.class);
  }
}
