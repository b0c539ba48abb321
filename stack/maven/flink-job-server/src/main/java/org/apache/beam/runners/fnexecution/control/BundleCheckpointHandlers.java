package org.apache.beam.runners.fnexecution.control;

import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.DelayedBundleApplication;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.ProcessBundleResponse;
import org.apache.beam.runners.core.StateInternals;
import org.apache.beam.runners.core.StateInternalsFactory;
import org.apache.beam.runners.core.StateNamespace;
import org.apache.beam.runners.core.StateNamespaces;
import org.apache.beam.runners.core.StateTags;
import org.apache.beam.runners.core.TimerInternals;
import org.apache.beam.runners.core.TimerInternalsFactory;
import org.apache.beam.runners.flink.translation.wrappers.streaming.WaitingTimers;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.state.TimeDomain;
import org.apache.beam.sdk.transforms.windowing.BoundedWindow;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.beam.sdk.values.WindowedValues;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Timestamp;
import org.joda.time.Duration;
import org.joda.time.Instant;

/**
 * Stands in for Beam's class of this name, which names every residual anew; Flink keeps a state per name for good.
 *
 * <p>docs/adr/0009-own-checkpoint-handler.md tells why, and when to delete it.
 */
public class BundleCheckpointHandlers {

    /**
     * Keeps what a splittable DoFn has left for later in a state cell, and sets the timer that brings it back.
     *
     * <p>Cell and timer bear the same name. Whoever is called by the timer reads the cell and leaves it full, so that
     * a cell is free again when no timer of its name is waiting, and not when it is empty.
     */
    public static class StateAndTimerBundleCheckpointHandler<T> implements BundleCheckpointHandler {
        public static final String SDF_PREFIX = "sdf_checkpoint";

        private final TimerInternalsFactory<T> timersOf;
        private final StateInternalsFactory<T> statesOf;
        private final Coder<WindowedValue<T>> residualCoder;
        private final Coder windowCoder;
        private final Optional<WaitingTimers> waitingTimers;
        private long named = 0;

        public StateAndTimerBundleCheckpointHandler(
                TimerInternalsFactory<T> timersOf,
                StateInternalsFactory<T> statesOf,
                Coder<WindowedValue<T>> residualCoder,
                Coder windowCoder) {
            this.timersOf = timersOf;
            this.statesOf = statesOf;
            this.residualCoder = residualCoder;
            this.windowCoder = windowCoder;
            this.waitingTimers = WaitingTimers.behind(timersOf);
        }

        public static boolean isSdfTimer(String timerId) {
            return timerId.startsWith(SDF_PREFIX);
        }

        @Override
        public void onCheckpoint(ProcessBundleResponse response) {
            for (DelayedBundleApplication left : response.getResidualRootsList()) {
                if (left.hasApplication()) {
                    try {
                        keep(left);
                    } catch (Exception e) {
                        throw new RuntimeException("A residual cannot be kept", e);
                    }
                }
            }
        }

        private void keep(DelayedBundleApplication left) throws Exception {
            byte[] encoded = left.getApplication().getElement().toByteArray();
            WindowedValue<T> residual = CoderUtils.decodeFromByteArray(residualCoder, encoded);
            T value = residual.getValue();
            TimerInternals timers = timersOf.timerInternalsForKey(value);
            StateInternals states = statesOf.stateInternalsForKey(value);
            Instant due = Instant.now().plus(delay(left));
            Instant hold = hold(left.getApplication().getOutputWatermarksMap().values());
            for (BoundedWindow window : residual.getWindows()) {
                StateNamespace namespace = StateNamespaces.window(windowCoder, window);
                String name = freeName(states.getKey(), namespace);
                timers.setTimer(namespace, name, "", due, hold, TimeDomain.PROCESSING_TIME);
                states.state(namespace, StateTags.value(name, residualCoder))
                        .write(
                                WindowedValues.of(
                                        value, residual.getTimestamp(), List.of(window), residual.getPaneInfo()));
            }
        }

        /** The first name that no residual of this key and window is waiting under. */
        private String freeName(Object key, StateNamespace namespace) throws Exception {
            if (waitingTimers.isEmpty()) { // A batch: its cells are in memory, shared by all keys, and end with it.
                return name(named++);
            }
            Set<String> taken = waitingTimers.get().names(key, namespace);
            long number = 0;
            while (taken.contains(name(number))) {
                number++;
            }
            return name(number);
        }

        private static String name(long number) {
            return SDF_PREFIX + ":" + number;
        }

        /** In whole seconds, like the hold below: so does Beam, and our readers' pauses were measured with it. */
        private static Duration delay(DelayedBundleApplication left) {
            return Duration.standardSeconds(left.getRequestedTimeDelay().getSeconds());
        }

        private static Instant hold(Collection<Timestamp> watermarks) {
            return watermarks.stream()
                    .map(watermark -> Instant.ofEpochMilli(watermark.getSeconds() * 1_000))
                    .min(Instant::compareTo)
                    .map(hold -> hold.isAfter(BoundedWindow.TIMESTAMP_MAX_VALUE) ? BoundedWindow.TIMESTAMP_MAX_VALUE : hold)
                    .orElse(BoundedWindow.TIMESTAMP_MIN_VALUE);
        }
    }
}
