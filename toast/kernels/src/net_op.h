// A gated delta net as MLX arrays: what stands between its projections. What it computes is in recurrence_work.cpp.
#pragma once
#include "recurrence_work.h"
#include "states_op.h"

namespace toast {

// What a model has of it, and where its projections put what.
struct Net {
  int k_heads, v_heads, dk, dv;
  std::vector<Part> parts;
  mx::array conv, A_log, dt_bias, norm;  // (taps, channels), (v_heads), (v_heads), (dv)
  float eps;

  int channels() const { return 2 * k_heads * dk + v_heads * dv; }
  int taps() const { return conv.shape(0); }
  mx::Shape kept(int B) const { return {B, taps() - 1, channels()}; }  // of what is convolved
  mx::Shape states(int B) const { return {B, v_heads, dv, dk}; }

  void check() const;
  // Throws where the projections, of these widths, have no such parts.
  void check(const std::vector<int>& widths) const;
  // Of conv, A_log, dt_bias and norm, evaluated and contiguous.
  DeltaNet work(const mx::array& conv, const mx::array& A_log, const mx::array& dt_bias, const mx::array& norm) const;
};

}  // namespace toast
