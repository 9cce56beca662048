import signal
import threading
from pathlib import Path

import pytest

from vitreous.training.machine.signals import Interrupted, listen_for_stop

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", BOTH)
def test_first_signal_is_recorded_and_does_not_interrupt(number: signal.Signals) -> None:
    with listen_for_stop() as stop:
        assert stop.signal_number == 0
        signal.raise_signal(number)
        assert stop.signal_number == number


@pytest.mark.parametrize(("first", "second"), [BOTH, BOTH[::-1], (signal.SIGINT, signal.SIGINT)])
def test_second_signal_interrupts_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with listen_for_stop():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)


def test_handlers_are_restored_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in BOTH]

    def fail() -> None:
        with listen_for_stop():
            assert [signal.getsignal(number) for number in BOTH] != before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [signal.getsignal(number) for number in BOTH] == before


def test_other_threads_install_no_handlers() -> None:
    numbers: list[int] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        with listen_for_stop() as stop:
            numbers.append(stop.signal_number)
            assert signal.getsignal(signal.SIGINT) is before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert numbers == [0]


def test_interruption_says_how_to_resume() -> None:
    error = Interrupted(signal.SIGTERM, Path("runs/fruit-3"), step=17)
    assert isinstance(error, KeyboardInterrupt)
    assert error.signal_number == 15
    assert str(error) == (
        "runs/fruit-3: stopped at step 17 and saved; continue with `vitreous train --resume runs/fruit-3`"
    )


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_closed_terminal_is_a_request_to_stop_unless_nohup_ignores_it() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, number in ((signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, 0)):
            signal.signal(signal.SIGHUP, handler)
            with listen_for_stop() as stop:
                signal.raise_signal(signal.SIGHUP)
                assert stop.signal_number == number
            assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
