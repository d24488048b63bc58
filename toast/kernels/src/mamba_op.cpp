// Mamba-2 from its arrays. What it computes is in mamba_work.cpp.
#include "mamba_work.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "bindings.h"
#include "mixer_op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

MixerOp mamba2(std::array<int, 4> sizes, const mx::array& conv, const OptionalArray& bias, const mx::array& A_log,
               const mx::array& D, const mx::array& dt_bias, std::pair<float, float> limits,
               const std::optional<std::pair<mx::array, float>>& norm) {
  auto [heads, groups, dv, dk] = sizes;
  refuse_mixer(heads < 1 || groups < 1 || heads % groups || dv < 1 || dk < 1, "heads.");
  int inner = heads * dv, channels = inner + 2 * groups * dk;
  Arrays all{by_tap(conv, channels)};
  for (auto x : {&A_log, &D, &dt_bias}) all.push_back(numbers(*x, {heads}));
  if (bias) all.push_back(numbers(mx::astype(*bias, conv.dtype()), {channels}));
  ShortConvolution c{(size_t)all[0].shape(0),
                     (size_t)channels,
                     all[0].data<char>(),
                     bias ? all[4].data<char>() : nullptr,
                     type_of(all[0]),
                     Activation::silu,
                     inner};
  Norm end{};
  if (norm) {
    all.push_back(numbers(norm->first, {inner}));
    end = {all.back().data<char>(), nullptr, norm->second};
  }
  Mamba m{(size_t)heads,      (size_t)(heads / groups), (size_t)dk,   (size_t)dv,    c,  numbers_of(all[1]),
          numbers_of(all[2]), numbers_of(all[3]),       limits.first, limits.second, end};
  auto dtype = norm ? std::optional(norm->first.dtype()) : std::nullopt;
  return {{c.taps - 1,
           c.channels,
           m.heads,
           m.dv,
           m.dk,
           m.inner(),
           {m.inner() + c.channels + m.heads},
           [m](size_t B, size_t T, const std::vector<Projected>& projected, const MixerState& state, char* y) {
             run(m, B, T, projected[0], state, y);
           }},
          std::move(all),
          dtype};
}

}  // namespace

void bind_mamba(nb::module_& m) {
  m.def("mamba2", &mamba2, nb::kw_only(), "sizes"_a, "conv"_a, "bias"_a.none(), "A_log"_a, "D"_a, "dt_bias"_a,
        "limits"_a, "norm"_a.none(),
        "sizes: heads, groups that share B and C, a head's width, its state's; conv (channels, taps, 1) and its bias; "
        "norm: of\ny silu(gate), weight and eps. One projection [gate, x, B, C, dt].");
}

}  // namespace toast
