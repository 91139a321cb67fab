"""A gated recurrent unit over many voxels, in pieces that stay in the cache of a CPU.

The same mathematics as torch's GRUCell; on a CPU that one writes every gate of all voxels to memory and reads it back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Voxels at a time: their states stay in the cache of a core.
_PIECE = 1024


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, wi: Tensor, wh: Tensor, bi: Tensor, bh: Tensor) -> Tensor:
        M, F = h.shape
        gates = x.new_empty(M, 4 * F)  # r, z, n, W_hn h + b_hn
        new = torch.empty_like(h)
        both = torch.cat([wi[: 2 * F].t(), wh[: 2 * F].t()])  # (2F, 2F)
        bias = bi[: 2 * F] + bh[: 2 * F]
        for s in range(0, M, _PIECE):
            k = slice(s, s + _PIECE)
            xk, hk, g = x[k], h[k], gates[k]
            rz, n, past = g[:, : 2 * F], g[:, 2 * F : 3 * F], g[:, 3 * F :]
            torch.addmm(bias, torch.cat([xk, hk], 1), both, out=rz)
            rz.sigmoid_()
            torch.addmm(bh[2 * F :], hk, wh[2 * F :].t(), out=past)
            torch.addmm(bi[2 * F :], xk, wi[2 * F :].t(), out=n)
            n.addcmul_(rz[:, :F], past).tanh_()
            torch.lerp(n, hk, rz[:, F:], out=new[k])
        ctx.save_for_backward(x, h, wi, wh, gates)
        return new

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, h, wi, wh, gates = ctx.saved_tensors
        M, F = h.shape
        dx, dh = torch.empty_like(x), torch.empty_like(h)
        dwi, dwh, dbi, dbh = wi.new_zeros(3 * F, F), wh.new_zeros(3 * F, F), wi.new_zeros(3 * F), wh.new_zeros(3 * F)
        both = torch.cat([wi[: 2 * F], wh[: 2 * F]], 1)  # (2F, 2F)
        dboth = wi.new_zeros(2 * F, 2 * F)
        for s in range(0, M, _PIECE):
            k = slice(s, s + _PIECE)
            xk, hk, g, e = x[k], h[k], gates[k], grad[k]
            rz, n, past = g[:, : 2 * F], g[:, 2 * F : 3 * F], g[:, 3 * F :]
            r, z = rz[:, :F], rz[:, F:]
            dz = (hk - n).mul_(e)
            ez = e * z
            dn = (e - ez).mul_(1 - n * n)
            drz = torch.cat([dn * past, dz], 1).mul_(torch.addcmul(rz, rz, rz, value=-1))
            dpast = dn * r
            xh = torch.cat([xk, hk], 1)
            dxh = drz @ both
            torch.addmm(dxh[:, :F], dn, wi[2 * F :], out=dx[k])
            torch.addmm(ez.add_(dxh[:, F:]), dpast, wh[2 * F :], out=dh[k])
            dboth.addmm_(drz.t(), xh)
            dwi[2 * F :].addmm_(dn.t(), xk)
            dwh[2 * F :].addmm_(dpast.t(), hk)
            dbi[: 2 * F] += drz.sum(0)
            dbi[2 * F :] += dn.sum(0)
            dbh[2 * F :] += dpast.sum(0)
        dwi[: 2 * F], dwh[: 2 * F] = dboth[:, :F], dboth[:, F:]
        dbh[: 2 * F] = dbi[: 2 * F]
        return dx, dh, dwi, dwh, dbi, dbh


class VoxelwiseGRU(nn.GRUCell):
    """`torch.nn.GRUCell`, with its parameters, over the rows of x and h (voxels, features)."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        """Return the new memory (voxels, features)."""
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        with torch.autocast(x.device.type, enabled=False):  # the memory is kept in single precision
            if x.device.type != "cpu":
                return super().forward(x.to(h.dtype), h)
            result: Tensor = _GRU.apply(x.to(h.dtype), h, *weights)  # type: ignore[no-untyped-call]
        return result
