import math

import torch

from puna.model.rms_norm import RMSNorm


def test_rms_norm_is_its_formula_in_float32() -> None:
    norm = RMSNorm(4, eps=1e-5)
    norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    x = torch.tensor([[3.0, -1.0, 2.0, 0.5]])
    scale = 1 / math.sqrt((9 + 1 + 4 + 0.25) / 4 + 1e-5)
    torch.testing.assert_close(norm(x), x * scale * norm.weight)
    huge = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square overflows float16
    assert RMSNorm(4, eps=1e-5).half()(huge).tolist() == [[1.0] * 4]
