"""Is it learning? From tensors of a forward pass to totals, from totals to figures, from figures to verdicts.

In: logits, labels and hidden states of a micro-batch. `rtd_totals` and `mlm_totals` reduce them to a few small tensors that
may be summed over micro-batches, ranks and steps (`Losses.totals`); `rtd_figures` and `mlm_figures` turn such sums into
floats (`Objective.summarise`); `judge` reads the step events of a run and says for each network what state it is in.

Accuracy is no figure here, because predicting "original" everywhere has 92 % of it. With r the share of replaced tokens,
the *prior gain* H(r) - (mean RTD loss) is what the discriminator knows beyond r, in nats per token. ROC-AUC and average
precision come from histograms of the logits. Token RMS is the distance of hidden states from the mean of their row: zero
where all tokens look the same. The histogram of drawn positions over the columns of the row, each bin divided by what
uniform drawing would give, shows masks that never reach the end of a row.

Shapes: B rows, L positions of a row, T = tokens of a packed batch, K drawn positions of a row, D hidden size; "token shape"
is [B, L] (Padded) or [T] (Packed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Layout, Padded
from electra.events import HISTOGRAM_PREFIX, number
from electra.metrics import binned_auc, binned_average_precision, binned_precision_recall, entropy

#: histogram of logits: equal bins over [-LOGIT_RANGE, LOGIT_RANGE]; even, so that .5 is a bin's edge
LOGIT_BINS = 1024
LOGIT_RANGE = 12.0
#: histogram of drawn positions over the columns of a row
POSITION_BINS = 16
#: a position bin is reported where uniform drawing would have put this many draws into it
EXPECTED_DRAWS = 16

# ELECTRA_SPEC section 8
HEALTHY_GAIN = 0.03
HEALTHY_AUC = 0.70
GOOD_AUC = 0.80
COLLAPSED_RMS = 1e-3
# below this share even a perfect discriminator gains little: H(.01) = .056 nats
MIN_REPLACED_SHARE = 0.01
MIN_UNIFORMITY = 0.5
# above this share of found fakes, or below the rest, they teach nothing
MAX_FAKES_FOUND = 0.99
# nats above / below the entropy of single tokens
PLATEAU_MARGIN = 0.1
GENERATOR_MARGIN = 0.5
# a loss that has risen this far above its best
DIVERGED_MLM_NATS = 1.0
DIVERGED_FACTOR = 1.5
# A generator that is trained on likelihood is as unsure as it is wrong: its entropy is near its loss, whatever the text and the
# stage (.92 to 1.04 of it in a small run with a reward beside likelihood). One that only fools the discriminator puts all
# on few tokens and loses many nats with them. Half is far from both; where less than 1 nat is lost, the text is simply known.
COLLAPSED_ENTROPY_SHARE = 0.5
COLLAPSED_ENTROPY_NATS = 1.0
GRADIENT_EXPLOSION = 50.0
# how many step events a verdict looks back on, and the least that a fault needs
RECENT = 5
EVIDENCE = 3


# -- tensors to totals --------------------------------------------------------------------------------------------------


@torch.no_grad()
def rtd_totals(
    logits: Tensor, replaced: Tensor, hidden: Tensor, layout: Layout, judged: Tensor | None = None
) -> dict[str, Tensor]:
    """What the discriminator's figures need of one micro-batch.

    Args:
        logits: token shape; positive = replaced.
        replaced: bool, token shape; the labels.
        hidden: token shape + [D]; the discriminator's last hidden states.
        layout: says which tokens are real.
        judged: bool, token shape; the real tokens that the discriminator learns from; None = all of them.

    Returns:
        `rtd_histogram` int64 [2, LOGIT_BINS] (row 0 originals, row 1 replaced; logits beyond the range fall into the outer
        bins), `rtd_loss` float32 [] (sum of the BCE), `rtd_deviation` float32 [] (sum of the squared deviation from the row's
        mean, averaged over D; a packed document counts as a row); all of them over the judged tokens.
    """
    judged = layout.real if judged is None else judged & layout.real
    scores = logits.float()
    labels = replaced.reshape(-1).long()
    inside = scores.reshape(-1).clamp(-LOGIT_RANGE, LOGIT_RANGE)
    bins = ((inside + LOGIT_RANGE) * (LOGIT_BINS / (2 * LOGIT_RANGE))).long().clamp(0, LOGIT_BINS - 1)  # nan: to some bin
    # all else goes into a third row, which is cut off: no gather of a data-dependent size
    rows = torch.where(judged.reshape(-1), labels, 2)
    histogram = torch.bincount(rows * LOGIT_BINS + bins, minlength=3 * LOGIT_BINS).view(3, LOGIT_BINS)[:2]
    losses = F.softplus(scores) - scores * replaced
    return {
        "rtd_histogram": histogram,
        "rtd_loss": torch.where(judged, losses, 0.0).sum(),
        "rtd_deviation": _deviation(hidden, layout, judged),
    }


def _deviation(hidden: Tensor, layout: Layout, judged: Tensor) -> Tensor:
    """Sum over judged tokens of the mean over D of (h - mean of the row's real tokens)^2; float32 []."""
    if isinstance(layout, Padded):
        hidden_BLD = hidden.float()
        real_BL = layout.real.float()
        count_B1 = real_BL.sum(1, keepdim=True).clamp(min=1)
        mean_BD = torch.einsum("bl,bld->bd", real_BL / count_B1, hidden_BLD)
        squares_BL = (hidden_BLD - mean_BD[:, None]).square().mean(-1)
        return (squares_BL * judged).sum()
    hidden_TD = hidden.float()
    lengths_N = layout.cu_seqlens.diff().long()
    document_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=hidden.device), lengths_N, output_size=len(hidden))
    sums_ND = hidden_TD.new_zeros(len(lengths_N), hidden.shape[-1]).index_add_(0, document_T, hidden_TD)
    mean_ND = sums_ND / lengths_N.clamp(min=1)[:, None]
    return ((hidden_TD - mean_ND[document_T]).square().mean(-1) * judged).sum()


@torch.no_grad()
def mlm_totals(
    losses_BK: Tensor, correct_BK: Tensor, drawn_BK: Tensor, weight_BK: Tensor, candidates: Tensor
) -> dict[str, Tensor]:
    """What the figures of a masked language model need of one micro-batch.

    Args:
        losses_BK: cross entropy at each drawn position, in nats.
        correct_BK: bool, the most likely token is the original.
        drawn_BK: int64, indices into the flattened tokens.
        weight_BK: float, 1 where a drawn position counts.
        candidates: bool, token shape; which tokens may be drawn (real, neither [CLS], [SEP] nor [MASK]).

    Returns:
        `mlm_loss` float32 [], `mlm_correct` float32 [], `mlm_drawn` float32 [] (sums over the drawn positions that count),
        and `position_totals`.
    """
    weight = weight_BK.float()
    return {
        "mlm_loss": torch.where(weight > 0, losses_BK.float() * weight, 0.0).sum(),
        "mlm_correct": (correct_BK * weight).sum(),
        "mlm_drawn": weight.sum(),
        **position_totals(drawn_BK, weight_BK, candidates),
    }


@torch.no_grad()
def position_totals(drawn_BK: Tensor, weight_BK: Tensor, candidates: Tensor) -> dict[str, Tensor]:
    """Where the positions of one micro-batch were drawn; arguments as of `mlm_totals`.

    Returns:
        `drawn_positions` int64 [2, POSITION_BINS] (row 0 draws, row 1 candidates, by column of the row; in a packed batch
        every row is taken to be as long as the average, which all are but the last of a shard).
    """
    width = candidates.shape[1] if candidates.dim() == 2 else -(-candidates.numel() // drawn_BK.shape[0])
    column_T = torch.arange(candidates.numel(), device=candidates.device) % width
    bin_T = column_T * POSITION_BINS // width
    drawn_bins = torch.where(weight_BK > 0, bin_T[drawn_BK], POSITION_BINS).reshape(-1)
    candidate_bins = torch.where(candidates.reshape(-1), bin_T, POSITION_BINS)
    positions = [torch.bincount(bins, minlength=POSITION_BINS + 1)[:POSITION_BINS] for bins in (drawn_bins, candidate_bins)]
    return {"drawn_positions": torch.stack(positions)}


# -- totals to figures --------------------------------------------------------------------------------------------------


def rtd_figures(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of the discriminator from summed `rtd_totals`: means over all real tokens; {} where there are none.

    `rtd_loss` and `prior_gain` in nats per token; `auc` and `average_precision` are nan where nothing was replaced.
    """
    negatives, positives = totals["rtd_histogram"].cpu().numpy()
    real = int(negatives.sum() + positives.sum())
    if real == 0:
        return {}
    share = float(positives.sum()) / real
    loss = float(totals["rtd_loss"]) / real
    precision, recall = binned_precision_recall(negatives, positives)
    return {
        "rtd_loss": loss,
        "prior_gain": entropy([share, 1 - share]) - loss,
        "auc": binned_auc(negatives, positives),
        "average_precision": binned_average_precision(negatives, positives),
        "recall": recall,
        "precision": precision,
        "replaced_share": share,
        "token_rms": math.sqrt(float(totals["rtd_deviation"]) / real),
    }


def mlm_figures(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of a masked language model from summed `mlm_totals`; {} where nothing was drawn.

    `mlm_loss` in nats per drawn position, and so is `generator_entropy`, the mean of -log p of the sampled tokens, where
    `totals` have its sum, `sampled_nll`; `mlm_accuracy`; and `position_figures`.
    """
    drawn = float(totals["mlm_drawn"])
    if drawn == 0:
        return {}
    figures = {"mlm_loss": float(totals["mlm_loss"]) / drawn, "mlm_accuracy": float(totals["mlm_correct"]) / drawn}
    if "sampled_nll" in totals:
        figures["generator_entropy"] = float(totals["sampled_nll"]) / drawn
    return figures | position_figures(totals)


def position_figures(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of the masks from summed `position_totals`.

    `drawn_at_00` ... `drawn_at_15`: how often a column of that sixteenth of the row was drawn, relative to uniform drawing (1),
    reported where enough draws were expected; `position_uniformity`: the least of them.
    """
    draws, candidates = totals["drawn_positions"].double()
    expected = (candidates * (draws.sum() / candidates.sum().clamp(min=1))).tolist()
    bars = {
        f"{HISTOGRAM_PREFIX}{index:02}": count / expectation
        for index, (count, expectation) in enumerate(zip(draws.tolist(), expected, strict=True))
        if expectation >= EXPECTED_DRAWS
    }
    return {**({"position_uniformity": min(bars.values())} if bars else {}), **bars}


# -- figures to verdicts ------------------------------------------------------------------------------------------------


class State(StrEnum):
    """What a verdict says; the first three are no faults."""

    WARMING_UP = "warming up"
    LEARNING = "learning"
    HEALTHY = "healthy"
    NOT_LEARNING = "not learning"
    COLLAPSED = "collapsed"
    GENERATOR_TOO_STRONG = "generator too strong"
    GENERATOR_COLLAPSED = "generator collapsed"
    MASKS_UNEVEN = "masks uneven"
    DIVERGED = "diverged"

    @property
    def is_fault(self) -> bool:
        return self not in (State.WARMING_UP, State.LEARNING, State.HEALTHY)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state of one network, and the figures that say so."""

    network: str
    state: State
    reason: str


def judge(
    history: Sequence[Mapping[str, Any]],
    networks: Sequence[str],
    *,
    warmup_done: bool,
    unigram_entropy: float | None = None,
) -> list[Verdict]:
    """One verdict for each network from the `step` events so far.

    "discriminator" is judged by its gain over the prior, a "generator" of latent fakes by how many pass, any other network by
    the loss that is called after it (`encoder_loss`), else by `mlm_loss`, or by `loss` where there is none.
    Only events of the last event's phase count, because the next phase may train other networks. Faults that need no
    comparison with a finished warm-up (non-finite or exploding numbers, uneven masks, nothing to detect, a collapsed
    generator) are told at once.

    Args:
        history: `step` events in order, with `figures`, `grad_norm` by network and `phase`, as emitted or as read from the log;
            the last hundred or so suffice, but the best loss is sought among them.
        networks: names; the one that draws positions (generator, encoder) comes first and gets the verdict on masks.
        warmup_done: verdicts on learning are due.
        unigram_entropy: entropy of single tokens of the corpus in nats: the loss of a model that knows only frequencies.
            Without it a masked language model is never called healthy nor stuck.
    """
    phase = history[-1].get("phase") if history else None
    events = [event for event in history if event.get("phase") == phase]
    verdicts = []
    for network in networks:
        loss = _loss_of(events, network)
        found = _not_finite(events, network, loss)
        if not found and network == "generator":
            found = _low_entropy(events)  # before its loss, which rises with it
        if not found:
            found = _exploded(events, network, loss)
        if not found and network == networks[0]:
            found = _uneven_masks(events)
        if not found and network == "discriminator":
            found = _discriminator(events, warmup_done, unigram_entropy)
        elif not found and loss == "generator_loss":
            found = _latent_generator(events, warmup_done)
        elif not found and loss != "loss":
            found = _masked_language_model(events, loss, warmup_done, unigram_entropy)
        elif not found:
            found = _supervised(events, warmup_done)
        verdicts.append(Verdict(network=network, state=found[0], reason=found[1]))
    return verdicts


_Found = tuple[State, str]


def _course(events: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The values of a figure in order; the log's `NaN` and `Infinity` become floats again."""
    return [float(event["figures"][name]) for event in events if name in event["figures"]]


def _recent(values: Sequence[float]) -> float:
    """Median of the last few; nan for none."""
    finite = [value for value in values[-RECENT:] if math.isfinite(value)]
    return median(finite) if finite else math.nan


def _best(values: Sequence[float]) -> float:
    """The least median over RECENT neighbours: the best level that was held, not the luckiest batch."""
    return min(_recent(values[start : start + RECENT]) for start in range(max(1, len(values) - RECENT + 1)))


def _loss_of(events: Sequence[Mapping[str, Any]], network: str) -> str:
    """The figure that a network is judged by; only a generator of latent fakes has the figure `generator_loss`."""
    if network == "discriminator":
        return "rtd_loss"
    return next((name for name in (f"{network}_loss", "mlm_loss") if _course(events, name)), "loss")


def _norms(events: Sequence[Mapping[str, Any]], network: str) -> list[float]:
    return [float(event["grad_norm"][network]) for event in events if network in event.get("grad_norm", {})]


def _not_finite(events: Sequence[Mapping[str, Any]], network: str, loss: str) -> _Found | None:
    for name, values in ((loss, _course(events, loss)), ("gradient norm", _norms(events, network))):
        if values and not math.isfinite(values[-1]):
            return State.DIVERGED, f"{name} is {values[-1]}"
    return None


def _low_entropy(events: Sequence[Mapping[str, Any]]) -> _Found | None:
    """The generator is far surer than it is right: it says few tokens, whatever stood there."""
    course = _course(events, "generator_entropy")
    if len(course) < EVIDENCE:
        return None
    entropy, loss, share = _recent(course), _recent(_course(events, "mlm_loss")), _recent(_course(events, "mlm_accuracy"))
    if entropy > COLLAPSED_ENTROPY_SHARE * loss or loss - entropy < COLLAPSED_ENTROPY_NATS:
        return None
    told = f"its entropy is {entropy:.2f} nats where its loss is {loss:.2f} (accuracy {share:.1%})"
    return State.GENERATOR_COLLAPSED, f"it is sure of few tokens, and wrong: {told}"


def _exploded(events: Sequence[Mapping[str, Any]], network: str, loss: str) -> _Found | None:
    """A loss far above its best, or a gradient norm far above its usual size."""
    losses, norms = _course(events, loss), _norms(events, network)
    if len(losses) >= RECENT + EVIDENCE and loss != "generator_loss":  # who plays against another may lose ground
        now, best = _recent(losses), _best(losses)
        limit = best * DIVERGED_FACTOR if loss in ("rtd_loss", "loss") else best + DIVERGED_MLM_NATS
        # a falling share of replaced tokens lowers the loss by itself, so a risen one counts only below the prior
        below_prior = loss != "rtd_loss" or _recent(_course(events, "prior_gain")) <= 0
        if now > limit and below_prior and (loss != "loss" or now > losses[0]):
            return State.DIVERGED, f"{loss} {number(now)} has risen from its best, {number(best)}"
    if len(norms) >= 2 * RECENT + EVIDENCE:
        now, usual = _recent(norms), median(norms[:-RECENT])
        if now > GRADIENT_EXPLOSION * usual:
            return State.DIVERGED, f"gradient norm {number(now)}, before {number(usual)}"
    return None


def _uneven_masks(events: Sequence[Mapping[str, Any]]) -> _Found | None:
    """Some part of the row is drawn less than half as often as it should be, over at least EVIDENCE events."""
    shares = {}
    for index in range(POSITION_BINS):
        bars = _course(events, f"{HISTOGRAM_PREFIX}{index:02}")[-4 * RECENT :]
        if len(bars) >= EVIDENCE:
            shares[index] = sum(bars) / len(bars)
    low = {index: share for index, share in shares.items() if share < MIN_UNIFORMITY}
    if not low:
        return None
    least = min(low, key=lambda index: low[index])
    part = f"{least / POSITION_BINS:.0%} to {(least + 1) / POSITION_BINS:.0%}"
    told = f"{len(low)} of {POSITION_BINS} parts of the row are drawn less than half as often as they should be"
    return State.MASKS_UNEVEN, f"{told}, least at {part} of the row ({low[least]:.2f} of its share)"


def _discriminator(events: Sequence[Mapping[str, Any]], warmup_done: bool, unigram_entropy: float | None) -> _Found:
    """Judged by its gain over the prior, once the generator is worth being judged against."""
    names = ("prior_gain", "auc", "replaced_share", "token_rms")
    gain, auc, share, rms = (_recent(_course(events, name)) for name in names)
    if len(events) < EVIDENCE:
        return State.WARMING_UP, "too few figures yet"
    if share < MIN_REPLACED_SHARE:
        return State.GENERATOR_TOO_STRONG, f"only {share:.2%} of the tokens are replaced: there is nothing to detect"
    told = f"prior gain {gain:.3f}, AUC {auc:.3f}"
    if not warmup_done:
        return State.WARMING_UP, told
    if rms <= COLLAPSED_RMS:
        return State.COLLAPSED, f"all tokens of a row look the same: token RMS {number(rms)}"
    if gain <= 0:
        return State.COLLAPSED, f"knows no more than the share of replaced tokens: {told}"
    if gain < HEALTHY_GAIN or auc < HEALTHY_AUC:
        return State.LEARNING, f"{told}; healthy from {HEALTHY_GAIN} and {HEALTHY_AUC:.2f}"
    generator_loss = _recent(_course(events, "mlm_loss"))
    if unigram_entropy is not None and generator_loss >= unigram_entropy:
        return (
            State.LEARNING,
            f"{told}, but against a generator that does not even know token frequencies (loss {generator_loss:.2f})",
        )
    return State.HEALTHY, told + (", good" if auc >= GOOD_AUC else "")


def _masked_language_model(
    events: Sequence[Mapping[str, Any]], name: str, warmup_done: bool, unigram_entropy: float | None
) -> _Found:
    """A generator or encoder is judged by what it knows beyond the frequencies of tokens."""
    loss, share = (_recent(_course(events, figure)) for figure in (name, name.replace("_loss", "_accuracy")))
    told = f"loss {loss:.2f}, accuracy {share:.1%}"
    if len(events) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, told
    if unigram_entropy is None:
        return State.LEARNING, told
    told += f", token frequencies alone {unigram_entropy:.2f}"
    if loss > unigram_entropy - PLATEAU_MARGIN:
        return State.NOT_LEARNING, told
    return (State.HEALTHY if loss < unigram_entropy - GENERATOR_MARGIN else State.LEARNING), told


def _supervised(events: Sequence[Mapping[str, Any]], warmup_done: bool) -> _Found:
    """A fine-tuned network: its loss has to fall."""
    losses = _course(events, "loss")
    if len(losses) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, f"loss {number(losses[-1])}" if losses else "too few figures yet"
    now = _recent(losses)
    told = f"loss {number(now)}, at the start {number(losses[0])}"
    return (State.HEALTHY if now < losses[0] else State.NOT_LEARNING), told


def _latent_generator(events: Sequence[Mapping[str, Any]], warmup_done: bool) -> _Found:
    """While all fakes are found, or none, they teach the discriminator nothing."""
    found = _recent(_course(events, "fakes_found"))
    told = f"{found:.1%} of the fakes are found, {_recent(_course(events, 'texts_kept')):.1%} of the texts pass"
    if len(events) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, told
    return (State.HEALTHY if 1 - MAX_FAKES_FOUND <= found <= MAX_FAKES_FOUND else State.LEARNING), told
