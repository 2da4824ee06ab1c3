"""Reads passages' tokens through the model: P and Q of each, in padded batches of like length."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.model import Direct
from llmdirect.scores import Documents, TokenTable
from llmdirect.views import TOKEN_BUDGET, View, length_batches


def read_passages(model: Direct, view: View, rows: Tensor) -> tuple[Tensor, Tensor]:
    """P [N, K] and Q [N, A] of these passages [N] of the view, with gradients where they are on."""
    lengths = view.lengths[rows].cpu().numpy()
    said: list[Tensor] = []
    mass: list[Tensor] = []
    order: list[NDArray[np.int64]] = []
    for batch in length_batches(np.maximum(lengths, 1), TOKEN_BUDGET):
        tokens, mask = view.tokens(rows[torch.from_numpy(batch).to(rows.device)])
        device = view.pooled.device
        p, q = model.passages(tokens.to(device), mask.to(device))
        said.append(p)
        mass.append(q)
        order.append(batch)
    if not order:
        width = model.aspects * model.channels
        return view.pooled.new_zeros(0, width), view.pooled.new_zeros(0, model.aspects)
    back = torch.from_numpy(np.argsort(np.concatenate(order))).to(view.pooled.device)
    return torch.cat(said)[back], torch.cat(mass)[back]


def read_all(model: Direct, documents: Documents) -> TokenTable:
    """The table of all passages, without gradients."""
    with torch.no_grad():
        rows = torch.arange(len(documents.view.lengths), device=documents.view.lengths.device)
        return TokenTable(documents, *read_passages(model, documents.view, rows))


def refreshed(table: TokenTable, rows: Tensor, said: Tensor, mass: Tensor) -> TokenTable:
    """`table` with the passages `rows` read anew: gradients reach the model through these alone.

    The other passages keep what an earlier read gave, so documents are whole at every update while only
    `rows` cost memory.
    """
    return TokenTable(
        table.documents,
        table.said.detach().index_copy(0, rows, said.to(table.said.dtype)),
        table.mass.detach().index_copy(0, rows, mass.to(table.mass.dtype)),
    )
