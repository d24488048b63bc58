// An MLX primitive made from a closure, and the few helpers that every op here needs.
// Knows MLX's arrays and streams; knows no kernel.
#pragma once
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"
#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"

namespace toast {

namespace mx = mlx::core;

using Arrays = std::vector<mx::array>;
using OptionalArray = std::optional<mx::array>;

// ours(s): the stream runs on the CPU, so the op is ours; otherwise hand it to MLX.
inline bool ours(const mx::Stream& s) { return s.device == mx::Device::cpu; }

// What is no argument of an op's: the message names the op.
struct Refuse {
  const char* op;
  void operator()(bool bad, const char* why) const {
    if (bad) throw std::invalid_argument(std::string(op) + why);
  }
};

inline bool is_float(mx::Dtype t) { return t == mx::float32 || t == mx::float16 || t == mx::bfloat16; }
inline Type type_of(const mx::array& a) {
  return a.dtype() == mx::float32 ? Type::f32 : a.dtype() == mx::float16 ? Type::f16 : Type::bf16;
}

// Runs `work()` on the stream's thread, in order with every other op.
template <class F>
void dispatch(const mx::Stream& s, F&& work) {
  mx::cpu::get_command_encoder(s).dispatch(std::forward<F>(work));
}

// `a` itself when its rows are contiguous, else a copy made on the stream (kept until it ran).
mx::array contiguous(const mx::array& a, const mx::Stream& s);

// `a` itself when its last dimension is contiguous, else a contiguous copy.
inline mx::array rows_contiguous(const mx::array& a, const mx::Stream& s) {
  return a.shape(-1) == 1 || a.strides(-1) == 1 ? a : contiguous(a, s);
}

// Memory of `n` bytes that lives as long as the array.
inline mx::array bytes_of(size_t n) {
  mx::array a({(int)((n + 3) / 4)}, mx::float32, nullptr, {});
  a.set_data(mx::allocator::malloc(a.nbytes()));
  return a;
}

// The same, until the stream's work so far is done.
inline char* temporary(size_t n, const mx::Stream& s) {
  auto memory = bytes_of(n);
  mx::cpu::get_command_encoder(s).add_temporary(memory);
  return memory.data<char>();
}

inline void allocate(mx::array& out) { out.set_data(mx::allocator::malloc(out.nbytes())); }

// An op that exists on the CPU only. `Eval` is called with (inputs, outputs, stream): it allocates
// the outputs and dispatches the work. No gradients: inference is all we do.
template <class Eval>
class Op : public mx::Primitive {
 public:
  Op(const char* name, mx::Stream s, Eval eval) : mx::Primitive(s), name_(name), eval_(std::move(eval)) {}
  void eval_cpu(const std::vector<mx::array>& in, std::vector<mx::array>& out) override { eval_(in, out, stream()); }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error(std::string("[toast] ") + name_ + " runs on the CPU only.");
  }
  const char* name() const override { return name_; }

 private:
  const char* name_;
  Eval eval_;
};

// One output: make(name, shape, dtype, stream, inputs, eval) with eval(inputs, out, stream).
template <class Eval>
mx::array make(const char* name, mx::Shape shape, mx::Dtype dtype, mx::Stream s, std::vector<mx::array> inputs,
               Eval eval) {
  auto one = [eval = std::move(eval)](const std::vector<mx::array>& in, std::vector<mx::array>& out,
                                      const mx::Stream& s) { eval(in, out[0], s); };
  return mx::array(std::move(shape), dtype, std::make_shared<Op<decltype(one)>>(name, s, std::move(one)),
                   std::move(inputs));
}

}  // namespace toast
