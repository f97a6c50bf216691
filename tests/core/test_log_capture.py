"""The log messages of a block, collected at any level and still logged."""

import logging

import pytest

from sheaf.core.log_capture import collect_logs

logger = logging.getLogger("sheaf")


def test_messages_are_collected_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "sheaf")
    caplog.handler.setLevel("INFO")
    handlers = list(logger.handlers)
    with collect_logs() as notes:
        logger.info("%d files are left out", 3)
    logger.info("not of the block")
    assert notes == caplog.messages == ["3 files are left out"]
    assert (logger.level, logger.handlers) == (logging.WARNING, handlers)
