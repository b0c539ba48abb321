package streamforge.bench;

import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;

/** Appends alerts to one file per subtask, at least once: flushed at each checkpoint, repeats are told by their key. */
public class AlertFiles implements Sink<Alert> {
  private final String folder;

  public AlertFiles(Path folder) {
    this.folder = folder.toString();
  }

  @Override
  @SuppressWarnings("deprecation")
  public SinkWriter<Alert> createWriter(Sink.InitContext context) throws IOException {
    return new Writer(Path.of(folder, "alerts-" + context.getTaskInfo().getIndexOfThisSubtask() + ".txt"));
  }

  @Override
  public SinkWriter<Alert> createWriter(WriterInitContext context) throws IOException {
    return new Writer(Path.of(folder, "alerts-" + context.getTaskInfo().getIndexOfThisSubtask() + ".txt"));
  }

  private static final class Writer implements SinkWriter<Alert> {
    private final BufferedWriter file;

    Writer(Path path) throws IOException {
      file = Files.newBufferedWriter(path, StandardCharsets.UTF_8, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    @Override
    public void write(Alert alert, Context context) throws IOException {
      file.write(alert.toString());
      file.newLine();
    }

    @Override
    public void flush(boolean endOfInput) throws IOException {
      file.flush();
      if (endOfInput) {
        Progress.finished();
      }
    }

    @Override
    public void close() throws IOException {
      file.close();
    }
  }
}
