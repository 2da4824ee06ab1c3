"""Epochs: parameter updates on left-out scores of the train pairs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llmdirect.config import TrainConfig
from llmdirect.model.direct import Direct
from llmdirect.model.item_documents import ItemDocuments, Pairs
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.token_tables import PooledTable, Table, read_all, read_passages, refreshed
from llmdirect.training.ema import ParameterEma
from llmdirect.training.negatives import sample_negatives
from llmdirect.training.objective import Objective
from llmdirect.training.results import Phase


def read_table(model: Direct, documents: ItemDocuments, phase: Phase) -> Table:
    """Sums of all passages under the present parameters, as epochs of this phase read them."""
    return PooledTable(model, documents) if phase == "pooled" else read_all(model, documents)


@dataclass(frozen=True, eq=False)
class EpochRunner:
    """Epochs over the train pairs of one training."""

    model: Direct
    documents: ItemDocuments
    objective: Objective
    training: TrainConfig
    generator: torch.Generator

    def run(
        self, epoch: int, table: Table, optimiser: torch.optim.Optimizer, ema: ParameterEma
    ) -> dict[str, float]:
        """One epoch over the train pairs in random order.

        Parameters
        ----------
        epoch
            From 1; selects the negatives that are drawn.
        table
            Passage sums under the present parameters. A table of tokens is refreshed in parts, one at every
            update.

        Returns
        -------
        dict
            Mean of each part of the loss over the pairs, and of their sum `loss`.
        """
        self.model.train()
        view, training = self.documents.view, self.training
        train_rows = (
            torch.arange(len(view.pair_user))
            if training.train_on_duplicates
            else view.unique_text_pairs.cpu()
        )
        num_pairs = len(train_rows)
        negatives = self._negatives(epoch)
        sums: dict[str, float] = {}
        order = train_rows[torch.randperm(num_pairs, generator=self.generator)]
        for rows, passages in self._updates(order, isinstance(table, PooledTable)):
            pairs = Pairs.from_view(view, rows.to(view.pair_user.device))
            with torch.autocast("cuda", torch.bfloat16, enabled=self._mixed_precision()):
                if passages is not None:
                    fresh = read_passages(self.model, view, passages)
                    assert not isinstance(table, PooledTable)
                    table = refreshed(table, passages, *fresh)
                scores = CatalogueScores(self.model, self.documents, table, None)
                sampled = None if negatives is None else negatives[rows].to(pairs.user.device)
                parts = self.objective(scores, pairs, sampled)
            optimiser.zero_grad(set_to_none=True)
            parts["loss"].backward()  # type: ignore[no-untyped-call]  # torch: no types
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip)
            optimiser.step()
            ema.add(self.model)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
        return {name: value / num_pairs for name, value in sums.items()}

    def _negatives(self, epoch: int) -> Tensor | None:
        """int64 [N, negatives] items for each pair, drawn again in each epoch; None: the whole catalogue."""
        view, training = self.documents.view, self.training
        if not training.negatives or training.predicts_ratings:
            return None
        drawn = sample_negatives(
            view.pair_user.cpu(),
            view.positives,
            view.num_items,
            training.negatives,
            seed=training.seed,
            draw=epoch,
        )
        return torch.from_numpy(drawn).long()

    def _updates(self, order: Tensor, pooled: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Pairs of each update and, on tokens, the passages that it reads."""
        if pooled:
            for rows in torch.split(order, self.training.batch_size):
                yield rows, None
            return
        view = self.documents.view
        lengths = view.lengths.cpu()
        passages = torch.randperm(len(lengths), generator=self.generator)
        passages = passages[(view.passage_item.cpu()[passages] >= 0) | (self.model.config.user != "history")]
        step = lengths[passages].cumsum(0) // self.training.token_budget
        updates = int(step[-1]) + 1 if len(step) else 1
        groups = [passages[step == number] for number in range(updates)]
        for rows, group in zip(order.tensor_split(updates), groups, strict=True):
            if len(rows):
                yield rows, group.to(view.lengths.device)

    def _mixed_precision(self) -> bool:
        return self.training.amp and self.documents.view.pooled.device.type == "cuda"
