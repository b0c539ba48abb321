package streamforge.bench;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.apache.flink.api.common.JobExecutionResult;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.api.java.utils.ParameterTool;

/**
 * The fraud job on plain Flink: drains a topic to its end offsets and prints one line of JSON.
 *
 * <pre>java -jar flink-peer.jar --kafka HOST:PORT --registry URL --topic TOPIC --workload filter|hot --folder FOLDER
 *   [--alerts FILE] [--parallelism 2] [--checkpoint-ms 5000]</pre>
 */
public final class FraudJob {

  public static void main(String[] args) throws Exception {
    ParameterTool options = ParameterTool.fromArgs(args);
    Path folder = Path.of(options.getRequired("folder")).toAbsolutePath();
    Path alertFolder = Files.createDirectories(folder.resolve("alerts"));
    boolean onlyHighValue = options.getRequired("workload").equals("filter");

    StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.getExecutionEnvironment(configuration(folder, options));
    environment.setParallelism(options.getInt("parallelism", 2));
    environment
        .fromSource(source(options), watermarks(), "orders")
        .filter(new Relevant(onlyHighValue))
        .keyBy(order -> order.userId)
        .process(new FraudDetector(onlyHighValue))
        .sinkTo(new AlertFiles(alertFolder));
    JobExecutionResult result = environment.execute("fraud");

    TreeSet<String> alerts = read(alertFolder);
    if (options.has("alerts")) {
      Files.write(Path.of(options.get("alerts")), alerts);
    }
    System.out.printf(
        Locale.ROOT,
        "{\"events\": %d, \"seconds\": %.3f, \"read_seconds\": %.3f, \"cpu_seconds\": %.3f, \"peak_mb\": %.1f,"
            + " \"alerts\": %d, \"checkpoints\": %d}%n",
        (Long) result.getAccumulatorResult(Relevant.EVENTS),
        (System.currentTimeMillis() - ManagementFactory.getRuntimeMXBean().getStartTime()) / 1e3,
        Progress.readSeconds(),
        ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9,
        peakMegabytes(),
        alerts.size(),
        Progress.checkpoints());
  }

  private static Configuration configuration(Path folder, ParameterTool options) {
    Duration interval = Duration.ofMillis(options.getLong("checkpoint-ms", 5_000));
    Configuration configuration = new Configuration();
    configuration.set(StateBackendOptions.STATE_BACKEND, "hashmap");
    configuration.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, interval);
    configuration.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
    configuration.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, folder.resolve("checkpoints").toUri().toString());
    // The drain would else wait up to five seconds for a last checkpoint, which this sink does not need.
    configuration.set(CheckpointingOptions.ENABLE_CHECKPOINTS_AFTER_TASKS_FINISH, false);
    configuration.set(PipelineOptions.OBJECT_REUSE, true);
    configuration.set(PipelineOptions.GENERIC_TYPES, false); // Kryo by accident is the classic slow Flink job
    return configuration;
  }

  private static KafkaSource<Order> source(ParameterTool options) {
    return KafkaSource.<Order>builder()
        .setBootstrapServers(options.getRequired("kafka"))
        .setTopics(options.getRequired("topic"))
        .setGroupId("bench-flink")
        .setStartingOffsets(OffsetsInitializer.earliest())
        .setBounded(OffsetsInitializer.latest())
        .setProperty("max.poll.records", "5000")
        .setDeserializer(new OrderDeserializer(options.getRequired("registry")))
        .build();
  }

  private static WatermarkStrategy<Order> watermarks() {
    return WatermarkStrategy.<Order>forBoundedOutOfOrderness(Rules.OUT_OF_ORDERNESS)
        .withTimestampAssigner((order, ignored) -> order.eventTime)
        .withIdleness(Duration.ofSeconds(30));
  }

  private static TreeSet<String> read(Path folder) throws IOException {
    TreeSet<String> alerts = new TreeSet<>();
    try (Stream<Path> files = Files.list(folder)) {
      for (Path file : (Iterable<Path>) files::iterator) {
        alerts.addAll(Files.readAllLines(file));
      }
    }
    return alerts;
  }

  /** Largest resident memory of this process; 0 where the system does not tell. */
  private static double peakMegabytes() throws IOException {
    Path status = Path.of("/proc/self/status");
    if (!Files.exists(status)) {
      return 0;
    }
    List<String> lines = Files.readAllLines(status);
    return lines.stream()
        .filter(line -> line.startsWith("VmHWM:"))
        .mapToDouble(line -> Long.parseLong(line.replaceAll("\\D", "")) / 1024.0)
        .findFirst()
        .orElse(0);
  }

  private FraudJob() {}
}
