package org.apache.beam.runners.flink.translation.wrappers.streaming;

import java.lang.reflect.Field;
import java.util.HashSet;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.Lock;
import org.apache.beam.runners.core.StateNamespace;
import org.apache.beam.runners.core.TimerInternals.TimerData;
import org.apache.beam.runners.core.TimerInternalsFactory;
import org.apache.flink.runtime.state.KeyedStateBackend;

/** The timers of a Flink operator that have not fired; in this package because Beam shows them to no other. */
public final class WaitingTimers {
    private final DoFnOperator<?, ?, ?> operator;

    private WaitingTimers(DoFnOperator<?, ?, ?> operator) {
        this.operator = operator;
    }

    /** Those of the operator that the factory is an inner class of; none for a factory outside of one. */
    public static Optional<WaitingTimers> behind(TimerInternalsFactory<?> factory) {
        for (Field field : factory.getClass().getDeclaredFields()) {
            if (DoFnOperator.class.isAssignableFrom(field.getType())) {
                try {
                    field.setAccessible(true);
                    return Optional.of(new WaitingTimers((DoFnOperator<?, ?, ?>) field.get(factory)));
                } catch (IllegalAccessException e) {
                    throw new IllegalStateException("Timers cannot be looked at", e);
                }
            }
        }
        return Optional.empty();
    }

    /** The timer ids of this key and namespace; the operator's state stands at the key afterwards. */
    public Set<String> names(Object key, StateNamespace namespace) throws Exception {
        Set<String> names = new HashSet<>();
        Lock lock = operator.getLockToAcquireForStateAccessDuringBundles();
        lock.lock();
        try {
            KeyedStateBackend<Object> backend = operator.getKeyedStateBackend();
            backend.setCurrentKey(key);
            // A timer leaves this map just before it fires.
            for (TimerData timer : operator.timerInternals.pendingTimersById.values()) {
                if (timer.getNamespace().equals(namespace)) {
                    names.add(timer.getTimerId());
                }
            }
        } finally {
            lock.unlock();
        }
        return names;
    }
}
