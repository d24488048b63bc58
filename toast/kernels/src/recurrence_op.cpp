// Layers with a state as MLX ops: arrays, shapes and streams. What they compute is in recurrence_work.cpp.
// States are MLX-LM's (B, heads, dv, dk), but for their strides: dv lies innermost.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstring>

#include "bindings.h"
#include "mlx/transforms.h"
#include "op.h"
#include "recurrence_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

void refuse(bool bad, const char* why) {
  if (bad) throw std::invalid_argument(std::string("[recurrence] ") + why);
}

mx::Strides state_strides(const mx::array& x) {
  int64_t heads = x.shape(1), dv = x.shape(2), dk = x.shape(3);
  return {heads * dk * dv, dk * dv, 1, dv};
}

// x (B, heads, dv, dk) of any strides -> y[B, heads, dk, dv]
void copy_states(const float* x, const mx::Shape& shape, const mx::Strides& strides, float* y) {
  for (int b = 0; b < shape[0]; b++)
    for (int h = 0; h < shape[1]; h++)
      for (int i = 0; i < shape[3]; i++)
        for (int j = 0; j < shape[2]; j++) *y++ = x[b * strides[0] + h * strides[1] + j * strides[2] + i * strides[3]];
}

// The states that `in` has, zeros without one: the same memory when nobody else holds it. What the previous step still
// holds is waited for instead of copied.
mx::array take_states(const mx::array* in, const mx::Shape& shape, const mx::Stream& s) {
  mx::array out(shape, mx::float32, nullptr, {});
  auto strides = state_strides(out);
  if (in && in->data_shared_ptr().use_count() > 1) mx::synchronize(s);
  if (in && in->is_donatable() && in->strides() == strides) {
    out.copy_shared_buffer(*in);
    return out;
  }
  out.set_data(mx::allocator::malloc(out.nbytes()), out.size(), strides, {true, false, false});
  if (in)
    dispatch(s, [x = in->data<float>(), shape, from = in->strides(), y = out.data<float>()] {
      copy_states(x, shape, from, y);
    });
  else
    dispatch(s, [y = out.data<char>(), n = out.nbytes()] { std::memset(y, 0, n); });
  return out;
}

// What a layer keeps for its next call, made by the op of its output.
using Kept = std::vector<OptionalArray>;

// An op's output, and what it keeps. eval(inputs, y, kept, stream). MLX gives an op of several outputs no buffer to
// write in place, so what is kept are arrays that wait for the one.
template <class Eval>
std::pair<mx::array, Arrays> make_keeping(const char* name, const mx::array& y, const Arrays& like, mx::Stream s,
                                          Arrays inputs, Eval eval) {
  auto kept = std::make_shared<Kept>(like.size());
  auto out = make(name, y.shape(), y.dtype(), s, std::move(inputs),
                  [eval = std::move(eval), kept](const Arrays& in, mx::array& y, const mx::Stream& s) {
                    eval(in, y, *kept, s);
                    dispatch(s, [held = *kept] {});  // those arrays may be dropped before the work is done
                  });
  Arrays arrays;
  for (size_t i = 0; i < like.size(); i++) {
    auto hand_out = [kept, i](const Arrays&, mx::array& out, const mx::Stream&) {
      out.copy_shared_buffer(*(*kept)[i]);
      (*kept)[i].reset();
    };
    arrays.push_back(make("Kept", like[i].shape(), like[i].dtype(), s, {out}, hand_out));
  }
  return {out, arrays};
}

// An array that has no data yet.
mx::array shaped(mx::Shape shape, mx::Dtype dtype) { return mx::array(std::move(shape), dtype, nullptr, {}); }

// Heads of x (B, T, ..) with rows in one piece, from column `first` on.
Heads heads_of(const mx::array& x, size_t first, size_t group, size_t each, size_t D) {
  return {x.data<char>() + first * x.itemsize(), type_of(x), x.strides(0), x.strides(1), (int64_t)group, each, D};
}

// x (B, T, heads, D) or (B, T, heads), all in one piece.
Heads heads_of(const mx::array& x) {
  size_t D = x.ndim() == 4 ? x.shape(3) : 1;
  return heads_of(x, 0, 0, x.shape(2), D);
}

Numbers numbers_of(const mx::array& x, const mx::Stream& s) { return {contiguous(x, s).data<char>(), type_of(x)}; }

// What a model has of a gated delta net, and where its projections put what.
struct Net {
  // Of q, k, v, z, a, b: the array, the first column, from a group of heads to the next, heads in a group.
  using Part = std::tuple<int, int, int, int>;
  int k_heads, v_heads, dk, dv;
  std::vector<Part> parts;
  mx::array conv, A_log, dt_bias, norm;  // (channels, taps, 1), (v_heads), (v_heads), (dv)
  float eps;

  int channels() const { return 2 * k_heads * dk + v_heads * dv; }
  int taps() const { return conv.shape(1); }
  int heads(int part) const { return part < 2 ? k_heads : v_heads; }
  int width(int part) const { return part < 2 ? dk : part < 4 ? dv : 1; }

  void check() const {
    refuse(k_heads < 1 || v_heads < 1 || v_heads % k_heads || dk < 1 || dv < 1, "heads.");
    refuse(parts.size() != 6, "six parts.");
    refuse(conv.ndim() != 3 || conv.shape(0) != channels() || taps() < 1 || taps() > (int)MOST_TAPS ||
               conv.shape(2) != 1 || !is_float(conv.dtype()),
           "a short convolution.");
    for (auto x : {&A_log, &dt_bias}) refuse(x->shape() != mx::Shape{v_heads} || !is_float(x->dtype()), "numbers.");
    refuse(norm.shape() != mx::Shape{dv} || !is_float(norm.dtype()), "a norm.");
  }

  void check(const Arrays& projected) const {
    for (int i = 0; i < 6; i++) {
      auto [which, first, group, each] = parts[i];
      refuse(which < 0 || which >= (int)projected.size() || first < 0 || group < 0 || each < 1 || heads(i) % each,
             "parts.");
      auto& x = projected[which];
      int end = first + (heads(i) / each - 1) * group + each * width(i);
      refuse(x.ndim() != 3 || end > x.shape(2) || x.dtype() != projected[0].dtype() || !is_float(x.dtype()) ||
                 x.shape(0) != projected[0].shape(0) || x.shape(1) != projected[0].shape(1) || !x.size(),
             "projections.");
    }
  }
};

// Of evaluated inputs: those of Net, the projections, [what was convolved before], [states].
DeltaNet work_of(const Net& n, const Arrays& in, bool continued, const mx::Stream& s) {
  size_t count = in.size() - 4 - (continued ? 2 : 0);
  Arrays x;
  for (size_t i = 0; i < count; i++) x.push_back(rows_contiguous(in[4 + i], s));
  auto part = [&](int i) {
    auto [which, first, group, each] = n.parts[i];
    return heads_of(x[which], first, group, each, n.width(i));
  };
  size_t B = x[0].shape(0), T = x[0].shape(1);
  States states{B,       T,       (size_t)n.v_heads, (size_t)(n.v_heads / n.k_heads), (size_t)n.dk, (size_t)n.dv,
                nullptr, nullptr, type_of(x[0])};
  const char* before = continued ? contiguous(in[4 + count], s).data<char>() : nullptr;
  return {states,
          part(0),
          part(1),
          part(2),
          part(3),
          part(4),
          part(5),
          before,
          contiguous(in[0], s).data<char>(),
          contiguous(in[3], s).data<char>(),
          nullptr,
          type_of(in[0]),
          type_of(in[3]),
          (size_t)n.taps(),
          numbers_of(in[1], s),
          numbers_of(in[2], s),
          n.eps};
}

// projected (B, T, ..), what was convolved before (B, taps - 1, channels) and states (B, v_heads, dv, dk), or none of
// both -> y (B, T, v_heads dv), and both again.
std::tuple<mx::array, mx::array, mx::array> run_net(const Net& n, const Arrays& projected, const OptionalArray& before,
                                                    const OptionalArray& states) {
  auto s = mx::to_stream({});
  refuse(!ours(s) || projected.empty() || before.has_value() != states.has_value(), "on the CPU, with all of a state.");
  n.check(projected);
  int B = projected[0].shape(0), T = projected[0].shape(1);
  auto type = projected[0].dtype();
  mx::Shape kept{B, n.taps() - 1, n.channels()}, state{B, n.v_heads, n.dv, n.dk};
  Arrays inputs{n.conv, n.A_log, n.dt_bias, n.norm};
  inputs.insert(inputs.end(), projected.begin(), projected.end());
  if (before) {
    refuse(before->shape() != kept || states->shape() != state, "a state of another shape.");
    inputs.insert(inputs.end(), {mx::astype(*before, type, s), mx::astype(*states, mx::float32, s)});
  }
  auto eval = [n, continued = before.has_value()](const Arrays& in, mx::array& y, Kept& kept, const mx::Stream& s) {
    auto work = work_of(n, in, continued, s);
    allocate(y);
    kept[0] = shaped({y.shape(0), n.taps() - 1, n.channels()}, y.dtype());
    allocate(*kept[0]);
    kept[1] = take_states(continued ? &in.back() : nullptr, {y.shape(0), n.v_heads, n.dv, n.dk}, s);
    work.states.y = y.data<char>(), work.after = kept[0]->data<char>(), work.states.data = kept[1]->data<float>();
    dispatch(s, [work] { run(work); });
  };
  auto [y, all] = make_keeping("GatedDeltaNet", shaped({B, T, n.v_heads * n.dv}, type),
                               {shaped(kept, type), shaped(state, mx::float32)}, s, std::move(inputs), eval);
  return {y, all[0], all[1]};
}

// The states of x (B, T, heads, dv), and what share one of B, T and `others` heads of dk.
struct Sizes {
  int B, T, heads, others, dk, dv;
  Sizes(const mx::array& x, const mx::array& keys)
      : B(x.ndim() == 4 ? x.shape(0) : 0),
        T(B ? x.shape(1) : 0),
        heads(B ? x.shape(2) : 0),
        others(0),
        dk(0),
        dv(B ? x.shape(3) : 0) {
    refuse(!x.size() || keys.ndim() != 4 || !keys.size(), "heads.");
    others = keys.shape(2), dk = keys.shape(3);
    refuse(heads % others, "heads that share.");
  }
  mx::Shape row() const { return {B, T, heads}; }
  mx::Shape keys(int heads) const { return {B, T, heads, dk}; }
  mx::Shape values() const { return {B, T, heads, dv}; }
  mx::Shape state() const { return {B, heads, dv, dk}; }
};

void check(const mx::array& x, const mx::Shape& shape) {
  refuse(x.shape() != shape || !is_float(x.dtype()), "shapes do not fit.");
}

// A rule over its inputs' heads -> y (B, T, heads, dv) of `type`, states. set(evaluated inputs, states, stream) gives
// its work.
template <class Set>
std::tuple<mx::array, mx::array> run_rule(const char* name, const Sizes& z, mx::Dtype type, Arrays inputs,
                                          const OptionalArray& states, Set set) {
  auto s = mx::to_stream({});
  refuse(!ours(s), "on the CPU only.");
  if (states) {
    check(*states, z.state());
    inputs.push_back(mx::astype(*states, mx::float32, s));
  }
  auto eval = [=, continued = states.has_value()](const Arrays& in, mx::array& y, Kept& kept, const mx::Stream& s) {
    Arrays x;
    for (size_t i = 0; i + continued < in.size(); i++) x.push_back(contiguous(in[i], s));
    allocate(y);
    kept[0] = take_states(continued ? &in.back() : nullptr, z.state(), s);
    States states{(size_t)z.B,  (size_t)z.T,  (size_t)z.heads,        (size_t)(z.heads / z.others),
                  (size_t)z.dk, (size_t)z.dv, kept[0]->data<float>(), y.data<char>(),
                  type_of(y)};
    dispatch(s, [work = set(x, states)] { run(work); });
  };
  auto [y, all] =
      make_keeping(name, shaped(z.values(), type), {shaped(z.state(), mx::float32)}, s, std::move(inputs), eval);
  return {y, all[0]};
}

std::tuple<mx::array, mx::array> gated_delta(const mx::array& q, const mx::array& k, const mx::array& v,
                                             const mx::array& g, const mx::array& beta, const OptionalArray& states) {
  Sizes z(v, k);
  check(v, z.values());
  check(q, z.keys(z.others));
  check(k, z.keys(z.others));
  check(g, g.ndim() == 4 ? z.keys(z.heads) : z.row());
  check(beta, z.row());
  return run_rule("GatedDelta", z, q.dtype(), {q, k, v, g, beta}, states, [](const Arrays& x, const States& s) {
    return DeltaRule{s, heads_of(x[0]), heads_of(x[1]), heads_of(x[2]), heads_of(x[3]), heads_of(x[4])};
  });
}

std::tuple<mx::array, mx::array> state_space(const mx::array& x, const mx::array& B, const mx::array& C,
                                             const mx::array& dt, const mx::array& A_log, const mx::array& D,
                                             const mx::array& dt_bias, std::pair<float, float> limits,
                                             const OptionalArray& states) {
  Sizes z(x, B);
  check(x, z.values());
  check(B, z.keys(z.others));
  check(C, z.keys(z.others));
  check(dt, z.row());
  for (auto n : {&A_log, &D, &dt_bias}) check(*n, {z.heads});
  auto set = [limits](const Arrays& x, const States& s) {
    auto numbers = [&](int i) { return Numbers{x[i].data<char>(), type_of(x[i])}; };
    return StateSpace{s,          heads_of(x[0]), heads_of(x[1]), heads_of(x[2]), heads_of(x[3]),
                      numbers(4), numbers(5),     numbers(6),     limits.first,   limits.second};
  };
  return run_rule("StateSpace", z, x.dtype(), {x, B, C, dt, A_log, D, dt_bias}, states, set);
}

std::tuple<mx::array, mx::array> wkv7(const mx::array& r, const mx::array& w, const mx::array& k, const mx::array& v,
                                      const mx::array& a, const mx::array& b, const OptionalArray& states) {
  Sizes z(v, k);
  check(v, z.values());
  for (auto x : {&r, &w, &k, &a, &b}) check(*x, z.keys(z.heads));
  return run_rule("Wkv7", z, r.dtype(), {r, w, k, v, a, b}, states, [](const Arrays& x, const States& s) {
    return Wkv{s, heads_of(x[0]), heads_of(x[1]), heads_of(x[2]), heads_of(x[3]), heads_of(x[4]), heads_of(x[5])};
  });
}

// As MLX's: ours where a channel meets itself alone, over a few steps.
mx::array conv1d(const mx::array& x, const mx::array& w, int stride, int padding, int dilation, int groups,
                 mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  bool known = ours(s) && x.ndim() == 3 && w.ndim() == 3 && stride == 1 && padding == 0 && dilation == 1 && x.size() &&
               groups == x.shape(2) && w.shape(0) == groups && w.shape(2) == 1 && w.shape(1) >= 1 &&
               w.shape(1) <= (int)MOST_TAPS && x.shape(1) >= w.shape(1) && is_float(x.dtype()) && is_float(w.dtype()) &&
               mx::result_type(x, w) == x.dtype();
  if (!known) return mx::conv1d(x, w, stride, padding, dilation, groups, where);
  auto eval = [](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = rows_contiguous(in[0], s), w = contiguous(in[1], s);
    allocate(out);
    Convolution c{
        x.data<char>(),       out.data<char>(),     type_of(x),           w.data<char>(),     nullptr,
        type_of(w),           (size_t)x.strides(1), (size_t)out.shape(2), (size_t)w.shape(1), (size_t)out.shape(1),
        (size_t)out.shape(2), Activation::none};
    dispatch(s, [c, B = (size_t)x.shape(0), text = (size_t)x.strides(0)] { convolve_all(c, B, text); });
  };
  return make("ShortConvolution", {x.shape(0), x.shape(1) - w.shape(1) + 1, x.shape(2)}, x.dtype(), s, {x, w}, eval);
}

}  // namespace

void bind_recurrence(nb::module_& m) {
  m.def("conv1d", &conv1d, nb::arg(), nb::arg(), "stride"_a = 1, "padding"_a = 0, "dilation"_a = 1, "groups"_a = 1,
        nb::kw_only(), "stream"_a = nb::none());
  m.def("gated_delta", &gated_delta, nb::kw_only(), "q"_a, "k"_a, "v"_a, "g"_a, "beta"_a, "state"_a.none(),
        "q, k (B, T, heads, dk), v (B, T, v_heads, dv), g (B, T, v_heads[, dk]), beta (B, T, v_heads), state (B, "
        "v_heads, dv, dk) or None\n-> y (B, T, v_heads, dv), state.");
  m.def("state_space", &state_space, nb::kw_only(), "x"_a, "B"_a, "C"_a, "dt"_a, "A_log"_a, "D"_a, "dt_bias"_a,
        "limits"_a, "state"_a.none(),
        "x (B, T, heads, dv), B, C (B, T, groups, dk), dt (B, T, heads), state (B, heads, dv, dk) or None\n"
        "-> y as x, state.");
  m.def("wkv7", &wkv7, nb::kw_only(), "r"_a, "w"_a, "k"_a, "v"_a, "a"_a, "b"_a, "state"_a.none(),
        "Six of (B, T, heads, D), and state (B, heads, D, D) or None\n-> y as r, state.");
  nb::class_<Net>(m, "GatedDeltaNet", "What stands between the projections of a gated delta net, as one op.")
      .def(
          "__init__",
          [](Net* self, std::array<int, 4> heads, std::vector<Net::Part> parts, const mx::array& conv,
             const mx::array& A_log, const mx::array& dt_bias, const mx::array& norm, float eps) {
            Net n{heads[0], heads[1], heads[2], heads[3], std::move(parts), conv, A_log, dt_bias, norm, eps};
            n.check();
            new (self) Net(std::move(n));
          },
          nb::kw_only(), "heads"_a, "parts"_a, "conv"_a, "A_log"_a, "dt_bias"_a, "norm"_a, "eps"_a)
      .def("__call__", &run_net, "projected"_a, "before"_a.none(), "state"_a.none());
}

}  // namespace toast
