package streamforge.bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import org.apache.avro.Schema;

/** The Confluent API's schemas by id. Confluent's own client is not on Maven Central. */
final class SchemaRegistry {
  private final String url;
  private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

  SchemaRegistry(String url) {
    this.url = url.replaceAll("/+$", "");
  }

  Schema schema(int id) throws IOException {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(url + "/schemas/ids/" + id)).timeout(Duration.ofSeconds(10)).build();
    try {
      HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
      if (answer.statusCode() != 200) {
        throw new IOException("schema " + id + ": the registry answers " + answer.statusCode());
      }
      return new Schema.Parser().parse(new ObjectMapper().readTree(answer.body()).get("schema").asText());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while asking for schema " + id, e);
    }
  }
}
