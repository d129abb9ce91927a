"""What all tests of models share."""

import pytest

from tests import classifier_runs


@pytest.fixture(scope="session", autouse=True)
def small_network() -> None:
    """A smaller `resnet_tiny`; programs that tests start have the one that users have."""
    classifier_runs.set_blocks_of_resnet_tiny(1)
