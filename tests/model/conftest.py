"""Fixtures of the model tests."""

import pytest

from llmdirect.data.dataset import Dataset
from llmdirect.model.train_view import TrainView
from model_helpers import small_dataset, view_of


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def view(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainView:
    return view_of(dataset, tmp_path_factory.mktemp("model"))
