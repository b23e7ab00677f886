"""The fast forms agree with the formulas at random sizes and settings."""

import random

import naive
import pytest
import torch

from mfsf2 import FREQUENCY_TABLES, ClassificationHead, MultiFreqMultiScaleFusion, dct_frequencies


@pytest.mark.parametrize("seed", range(20))
def test_fusion_and_head(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    stages, batch, grid, size = rng.randint(1, 4), rng.randint(1, 3), rng.choice([7, 8, 14, 15]), rng.choice([5, 14])
    if seed % 4 == 3:
        frequencies, num = [(rng.randrange(7), rng.randrange(7)) for _ in range(rng.randint(1, 9))], 16
    else:
        frequencies, num = rng.choice(list(FREQUENCY_TABLES)), rng.choice([1, 2, 4, 8, 16, 32])
    cnn_chans, transformer_chans = ([rng.randint(1, 20) for _ in range(stages)] for _ in range(2))
    fusion = MultiFreqMultiScaleFusion(
        cnn_chans,
        transformer_chans,
        channels=rng.choice([16, 24]),
        pyramid_chans=16,
        out_chans=64,
        pyramid_size=size,
        reduction=rng.choice([4, 16]),
        num_frequencies=num,
        frequencies=frequencies,
        grid_size=grid,
        dtype=torch.float64,
    ).eval()
    head = ClassificationHead(cnn_chans[-1] + transformer_chans[-1] + 64, 5, dtype=torch.float64).eval()
    naive.randomize_norms(fusion)
    naive.randomize_norms(head)

    def maps(chans: list[int], sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
        return [torch.randn(batch, c, *s, dtype=torch.float64) for c, s in zip(chans, sizes)]

    grids = [(rng.randint(1, 20), rng.randint(1, 20)) for _ in range(stages)]
    # Half of the settings have branches of one grid, as the published network has.
    cnn_grids = grids if seed % 2 else [(rng.randint(1, 20), rng.randint(1, 20)) for _ in range(stages)]
    r, p = maps(cnn_chans, cnn_grids), maps(transformer_chans, grids)

    pairs = dct_frequencies(frequencies, num)
    expected = [
        naive.fusion_stage(a, b, naive.weights_of(fusion, f"stages.{i}."), pairs, grid)
        for i, (a, b) in enumerate(zip(r, p))
    ]
    expected_map = naive.pyramid_map(expected, naive.weights_of(fusion, "pyramid."), size, (1, 4, 8, 16))
    with torch.no_grad():
        fused, pooled = fusion(r, p)
        _, pyramid_map = fusion(r, p, pooled=False)
        joined = [torch.nn.functional.interpolate(r[-1], grids[-1], mode="bilinear", align_corners=True), p[-1]]
        constant = pooled[:, :, None, None].expand(-1, -1, *grids[-1])
        logits = head(torch.cat([*joined, constant], 1))
    for actual, naive_map in zip(fused, expected, strict=True):
        torch.testing.assert_close(actual, naive_map, rtol=0, atol=1e-10)
    torch.testing.assert_close(pyramid_map, expected_map, rtol=0, atol=1e-10)
    torch.testing.assert_close(pooled, expected_map.mean((2, 3)), rtol=0, atol=1e-10)
    expected_logits = naive.head(joined[0], p[-1], expected_map.mean((2, 3)), naive.weights_of(head))
    torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-10)
