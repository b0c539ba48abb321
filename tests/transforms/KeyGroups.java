import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.Scanner;
import org.apache.beam.runners.flink.adapter.FlinkKey;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;

/** Reads lines of a key in hex and a max parallelism; writes the key group that Beam's Flink runner has for it. */
public class KeyGroups {
  public static void main(String[] args) {
    Scanner lines = new Scanner(System.in);
    while (lines.hasNext()) {
      byte[] key = HexFormat.of().parseHex(lines.next().substring(1));
      int hash = FlinkKey.of(ByteBuffer.wrap(key)).hashCode();
      System.out.println(KeyGroupRangeAssignment.computeKeyGroupForKeyHash(hash, lines.nextInt()));
    }
  }
}
