import pytest

from headrace.cli.factory_process import FactoryProcess
from headrace.core.errors import HeadraceError


def test_a_factory_that_can_not_start_says_why(tmp_path):
    factory = FactoryProcess(seed=1, speed=-1.0, anchor_ns=0, folder=tmp_path)
    factory.start()
    with pytest.raises(
        HeadraceError, match=r"the simulated factory could not start: .*speed must be above 0"
    ):
        factory.wait_ready()
    factory.stop()
    factory.stop()


def test_stop_before_start(tmp_path):
    FactoryProcess(1, 1.0, 0, tmp_path).stop()


def test_a_factory_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.cli.factory_process._START_TIMEOUT_S", 0.0)
    factory = FactoryProcess(1, 1.0, 0, tmp_path)
    factory.start()
    with pytest.raises(HeadraceError, match="is not up after"):
        factory.wait_ready()
    factory.stop()
