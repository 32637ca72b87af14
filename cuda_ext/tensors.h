// The little that the glue needs of torch: checks, allocation, data pointers; LibTorch stable ABI only.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace sds3d {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr auto FLOAT = ScalarType::Float;
constexpr auto DOUBLE = ScalarType::Double;
constexpr auto INT = ScalarType::Int;
constexpr auto LONG = ScalarType::Long;

inline std::string device_name(const Tensor& t) {
  return t.is_cuda() ? "cuda:" + std::to_string(t.get_device_index()) : "cpu";
}

inline const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Bool:
      return "bool";
    default:
      return "differently typed";
  }
}

inline int64_t dtype_bytes(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
    case ScalarType::Long:
      return 8;
    case ScalarType::Float:
    case ScalarType::Int:
      return 4;
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return 2;
    default:
      return 1;
  }
}

// What `make` returns. The stable ABI drops the type and the text of what torch throws, so where memory is refused it
// is said here, in the words that sds3d.errors.is_out_of_memory knows.
template <class Make>
Tensor allocated(int64_t bytes, Make make) {
  try {
    return make();
  } catch (const std::exception& error) {
    throw std::runtime_error("out of memory: you tried to allocate " + std::to_string(bytes) + " bytes; " +
                             error.what());
  }
}

// Throws unless `t` has dtype, shape and the device of `like`; returns it contiguous.
inline Tensor checked(const Tensor& t, const char* name, ScalarType dtype, std::initializer_list<int64_t> shape,
                      const Tensor& like) {
  bool fits = t.scalar_type() == dtype && t.dim() == int64_t(shape.size()) && t.is_cuda() == like.is_cuda() &&
              t.get_device_index() == like.get_device_index();
  int64_t axis = 0;
  for (int64_t size : shape) fits = fits && t.size(axis++) == size;
  if (!fits) {
    std::ostringstream message;
    message << name << ": expected a " << dtype_name(dtype) << " tensor [";
    for (int64_t size : shape) message << ' ' << size;
    message << " ] on " << device_name(like) << ", got dtype " << int(t.scalar_type()) << " [";
    for (axis = 0; axis < t.dim(); ++axis) message << ' ' << t.size(axis);
    message << " ] on " << device_name(t);
    throw std::runtime_error(message.str());
  }
  return allocated(t.numel() * dtype_bytes(dtype), [&] { return torch::stable::contiguous(t); });
}

inline void require(bool condition, const char* message) {
  if (!condition) throw std::runtime_error(message);
}

inline int64_t bytes_of(const std::vector<int64_t>& shape, ScalarType dtype) {
  int64_t bytes = dtype_bytes(dtype);
  for (int64_t size : shape) bytes *= size;
  return bytes;
}

inline Tensor empty(const std::vector<int64_t>& shape, ScalarType dtype, const Tensor& like) {
  return allocated(bytes_of(shape, dtype), [&] { return torch::stable::new_empty(like, shape, dtype); });
}

inline Tensor zeros(const std::vector<int64_t>& shape, ScalarType dtype, const Tensor& like) {
  return allocated(bytes_of(shape, dtype), [&] { return torch::stable::new_zeros(like, shape, dtype); });
}

inline const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
inline float* floats_out(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }
template <class T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

}  // namespace sds3d
