import org.apache.beam.sdk.expansion.service.ExpansionServer;
import org.apache.beam.sdk.expansion.service.ExpansionService;
import org.apache.beam.sdk.expansion.service.ExpansionServiceOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;

import java.util.Arrays;

/** Beam's own main listens on every interface and serves local files as artefacts to whoever asks; this one does not. */
class LoopbackExpansionService {
    public static void main(String[] args) throws Exception {
        PipelineOptionsFactory.register(ExpansionServiceOptions.class);
        var options = PipelineOptionsFactory.fromArgs(Arrays.copyOfRange(args, 1, args.length)).create();
        var service = new ExpansionService(options, "localhost:" + args[0]);
        var server = ExpansionServer.create(service, "127.0.0.1", Integer.parseInt(args[0]));
        System.out.println("Expansion service at " + server.getHost() + ":" + server.getPort());
        Thread.currentThread().join();
    }
}
