from headrace.core.errors import ConfigError, HeadraceError, Overloaded, RetryLater


def test_a_config_error_says_where():
    error = ConfigError("is missing", "adapters.ovens.protocol")
    assert str(error) == "adapters.ovens.protocol: is missing"
    assert (error.where, error.message) == ("adapters.ovens.protocol", "is missing")
    assert str(ConfigError("is missing")) == "is missing"


def test_retry_later_says_when():
    error = RetryLater("the gateway is busy", 2.5)
    assert isinstance(error, HeadraceError)
    assert (str(error), error.wait_s) == ("the gateway is busy", 2.5)


def test_overload_says_when_to_come_again():
    assert Overloaded("no credit").wait_s == 1.0
    assert Overloaded("no credit", 4.0).wait_s == 4.0
