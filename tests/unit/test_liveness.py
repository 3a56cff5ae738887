"""The parts of a process that do not advance are named."""

import os

from indexer.liveness import LOOP_SECONDS, PULSE_SECONDS, Liveness


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_loop_that_does_not_advance_is_a_fault() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    assert liveness.faults() == []
    advance, _ = liveness.loop("poller"), liveness.loop("builder", 2 * LOOP_SECONDS)
    clock.now += LOOP_SECONDS + 1
    assert liveness.faults() == ["poller"]
    advance()
    assert liveness.faults() == []
    clock.now += LOOP_SECONDS
    assert liveness.faults() == ["builder"]


def test_pulse_of_a_forked_process_is_seen() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    if not (child := os.fork()):
        liveness.pulse(1)
        os._exit(0)
    os.waitpid(child, 0)
    assert liveness.faults() == []
    clock.now += PULSE_SECONDS + 1
    assert liveness.faults() == ["process 1"]
