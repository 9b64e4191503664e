from headrace.core.errors import ConfigError, HeadraceError, RetryLater


def test_a_config_error_says_where():
    error = ConfigError("is missing", "adapters.ovens.protocol")
    assert str(error) == "adapters.ovens.protocol: is missing"
    assert (error.where, error.message) == ("adapters.ovens.protocol", "is missing")
    assert str(ConfigError("is missing")) == "is missing"


def test_retry_later_says_when():
    error = RetryLater("the gateway is busy", 2.5)
    assert isinstance(error, HeadraceError)
    assert (str(error), error.wait_s) == ("the gateway is busy", 2.5)
