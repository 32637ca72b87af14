// A fake accelerator for tests: host memory under the device type PrivateUse1, every operator by its CPU kernel, but
// with CUDA's refusals: tensors of two devices, generators of another device, operators that have no CUDA kernel. What
// would make the host wait for a real device (item(), copies, nonzero...) is reported to Python. See device.py.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/PythonFallbackKernel.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <sstream>
#include <unordered_map>
#include <unordered_set>

namespace {

using c10::Device;
using c10::DeviceType;
using c10::IValue;
using c10::Storage;
constexpr DeviceType KIND = DeviceType::PrivateUse1;
const Device HERE(KIND, 0);

// Operators by "name.overload"; Python fills the first two.
std::unordered_set<std::string> NO_CHECK;           // without codegen's device check on CUDA
std::unordered_set<std::string> NO_CUDA;            // without a CUDA kernel
const std::unordered_set<std::string> INDEXING = {  // indices may be on the CPU
    "aten::index.Tensor",     "aten::index_put_",           "aten::_index_put_impl_",  "aten::index_put",
    "aten::index.Tensor_out", "aten::_unsafe_index.Tensor", "aten::_unsafe_index_put", "aten::index_put.out"};
const std::unordered_set<std::string> WAITS = {  // whose result's size is known to the device only
    "aten::nonzero",
    "aten::nonzero.out",
    "aten::masked_select",
    "aten::masked_select.out",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave.Tensor",
    "aten::bincount",
    "aten::equal",
    "aten::histc",
    "aten::_linalg_check_errors",
    "sds3d::rasterize_gaussians",
    "sds3d::outline_crossings"};
void (*LISTENER)(const char*, const char*) = nullptr;

void note(const char* kind, const std::string& what) {
  if (LISTENER != nullptr) LISTENER(kind, what.c_str());
}

// ---- memory ----
struct HostAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    c10::DataPtr host = c10::GetCPUAllocator()->allocate(n);
    void* data = host.get();
    auto* keep = new c10::DataPtr(std::move(host));
    return {data, keep, [](void* p) { delete static_cast<c10::DataPtr*>(p); }, HERE};
  }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
};
HostAllocator ALLOCATOR;

// The same bytes under another device; the new storage keeps the old one alive.
Storage seen_as(const Storage& from, Device device, c10::Allocator* allocator) {
  c10::DataPtr data(
      const_cast<void*>(from.data()), new Storage(from), [](void* p) { delete static_cast<Storage*>(p); }, device);
  return Storage(Storage::use_byte_size_t(), from.nbytes(), std::move(data), allocator, true);
}
at::Tensor tensor_on(Storage storage, c10::DispatchKey key, const at::Tensor& like) {
  at::Tensor out = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return out;
}
void resize_storage(const Storage& storage, size_t bytes) {
  if (bytes <= storage.nbytes()) return;
  c10::DataPtr data = ALLOCATOR.allocate(bytes);
  if (storage.nbytes() > 0) std::memcpy(data.get(), storage.data(), storage.nbytes());
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
  storage.unsafeGetStorageImpl()->set_nbytes(bytes);
}

// ---- the device ----
struct Guard final : c10::impl::DeviceGuardImplInterface {
  Guard() = default;
  explicit Guard(DeviceType) {}
  DeviceType type() const override { return KIND; }
  Device exchangeDevice(Device) const override { return HERE; }
  Device getDevice() const override { return HERE; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  c10::Stream getStream(Device) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream getDefaultStream(Device) const override { return getStream(HERE); }
  c10::Stream getNewStream(Device, int) const override { return getStream(HERE); }
  c10::Stream getStreamFromGlobalPool(Device, bool) const override { return getStream(HERE); }
  c10::Stream exchangeStream(c10::Stream) const override { return getStream(HERE); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct StrictGenerator final : c10::GeneratorImpl {
  at::Generator inner;
  explicit StrictGenerator(at::Generator g)
      : c10::GeneratorImpl(HERE, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)), inner(std::move(g)) {}
  static DeviceType device_type() { return KIND; }
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t o) override { inner.set_offset(o); }
  uint64_t get_offset() const override { return inner.get_offset(); }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& s) override { inner.unsafeGetGeneratorImpl()->set_state(s); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  StrictGenerator* clone_impl() const override { return new StrictGenerator(inner.clone()); }
};
at::Generator new_generator() {
  return at::make_generator<StrictGenerator>(at::globalContext().defaultGenerator(at::kCPU).clone());
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  at::Device getDeviceFromPtr(void*) const override { return HERE; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static at::Generator generator = new_generator();
    return generator;
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return new_generator(); }
  void resizePrivateUse1Bytes(const Storage& storage, size_t bytes) const override { resize_storage(storage, bytes); }
};

// ---- one call of an operator on host memory ----
struct Call {
  std::string name;
  bool exact = true;  // codegen's check: no tensor on another device, not even a scalar
  bool has_strict = false;
  std::string on_cpu;  // the first tensor found there that may not be
  bool bool_index = false;
  std::unordered_map<c10::StorageImpl*, Storage> aliases;    // strict storage -> its alias
  std::unordered_map<c10::StorageImpl*, Storage> originals;  // alias -> strict storage
  std::vector<std::pair<at::Tensor, at::Tensor>> tensors;    // strict tensor, alias

  at::Tensor host(const at::Tensor& t) {
    if (!t.defined() || !t.is_privateuseone()) return t;
    for (auto& [strict, alias] : tensors)
      if (strict.is_same(t)) return alias;
    auto* impl = t.storage().unsafeGetStorageImpl();
    auto found = aliases.find(impl);
    if (found == aliases.end()) {
      Storage alias = seen_as(t.storage(), Device(DeviceType::CPU), c10::GetCPUAllocator());
      originals.emplace(alias.unsafeGetStorageImpl(), t.storage());
      found = aliases.emplace(impl, alias).first;
    }
    at::Tensor out = tensor_on(found->second, c10::DispatchKey::CPU, t);
    if (t.unsafeGetTensorImpl()->is_wrapped_number()) out.unsafeGetTensorImpl()->set_wrapped_number(true);
    tensors.emplace_back(t, out);
    return out;
  }
  at::Tensor device(const at::Tensor& t) {
    if (!t.defined() || !t.is_cpu()) return t;
    for (auto& [strict, alias] : tensors)
      if (alias.is_same(t)) return strict;
    auto found = originals.find(t.storage().unsafeGetStorageImpl());
    if (found != originals.end()) return tensor_on(found->second, c10::DispatchKey::PrivateUse1, t);
    return tensor_on(seen_as(t.storage(), HERE, &ALLOCATOR), c10::DispatchKey::PrivateUse1, t);
  }
  // out= arguments that the kernel resized
  void adopt() {
    for (auto& [strict, alias] : tensors) {
      Storage storage = strict.storage(), other = alias.storage();
      if (other.data() != storage.data() || other.nbytes() != storage.nbytes()) {
        Storage copy = seen_as(other, HERE, &ALLOCATOR);
        c10::DataPtr data(
            const_cast<void*>(other.data()), new Storage(other), [](void* p) { delete static_cast<Storage*>(p); },
            HERE);
        storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
        storage.unsafeGetStorageImpl()->set_nbytes(other.nbytes());
      }
      if (strict.sizes() != alias.sizes() || strict.strides() != alias.strides())
        strict.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
    }
  }
  void look(const at::Tensor& t, const std::string& what, bool index) {
    if (!t.defined()) return;
    if (t.is_privateuseone()) {
      has_strict = true;
      if (index && (t.scalar_type() == at::kBool || t.scalar_type() == at::kByte)) bool_index = true;
    } else if (t.is_cpu() && on_cpu.empty() && !index && (exact || t.dim() > 0) &&
               !t.unsafeGetTensorImpl()->is_wrapped_number()) {
      on_cpu = c10::str(what, " of shape ", t.sizes());
    } else if (t.is_cpu() && index && t.dim() > 0) {
      note("h2d", name + " (index on the CPU)");
    }
  }
};

void run_on_host(const c10::OperatorHandle& op, const c10::OperatorHandle& kernel, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  Call call;
  call.name = schema.name() + (schema.overload_name().empty() ? "" : "." + schema.overload_name());
  call.exact = NO_CHECK.count(call.name) == 0;
  const bool indexing = INDEXING.count(call.name) > 0;
  const size_t count = schema.arguments().size();
  const size_t first = stack->size() - kernel.schema().arguments().size();
  bool asks_device = false, asks_generator = false;
  for (size_t i = first; i < stack->size(); ++i) {
    IValue& value = (*stack)[i];
    const std::string what = "argument " + std::to_string(i - first) +
                             (i - first < count ? " (" + schema.arguments()[i - first].name() + ")" : "");
    const bool index = indexing && value.isList();
    if (value.isTensor()) {
      call.look(value.toTensor(), what, false);
      value = call.host(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list = value.toTensorVector();
      for (auto& t : list) {
        call.look(t, what, index);
        t = call.host(t);
      }
      value = IValue(c10::List<at::Tensor>(list));
    } else if (value.isOptionalTensorList()) {
      auto list = value.toOptionalTensorList();
      c10::List<std::optional<at::Tensor>> made;
      for (size_t k = 0; k < list.size(); ++k) {
        std::optional<at::Tensor> t = list.get(k);
        if (t.has_value()) {
          call.look(*t, what, index);
          t = call.host(*t);
        }
        made.push_back(t);
      }
      value = IValue(made);
    } else if (value.isDevice() && value.toDevice().type() == KIND) {
      value = IValue(Device(DeviceType::CPU));
      asks_device = true;
    } else if (value.isGenerator()) {
      at::Generator generator = value.toGenerator();
      asks_generator = generator.defined() && generator.device().type() == KIND;
      if (asks_generator)
        value = IValue(static_cast<StrictGenerator*>(generator.unsafeGetGeneratorImpl())->inner);
      else
        TORCH_CHECK(!generator.defined(), "STRICT: Expected a 'strict' device type for generator but found 'cpu' in ",
                    call.name);
    }
  }
  TORCH_CHECK(NO_CUDA.count(call.name) == 0, "STRICT: ", call.name, " has no CUDA kernel");
  TORCH_CHECK(!(call.has_strict && !call.on_cpu.empty()), "STRICT: mixed devices in ", call.name, ": ", call.on_cpu,
              " is on the CPU");
  TORCH_CHECK(call.has_strict || asks_device || !asks_generator,
              "STRICT: Expected a 'cpu' device type for generator in ", call.name);
  if (WAITS.count(call.name)) note("wait", call.name);
  // x[mask] = number is masked_fill_ on CUDA, and waits for nothing
  const bool fills = indexing && count >= 3 && schema.arguments()[2].name() == "values" &&
                     (*stack)[first + 2].isTensor() && (*stack)[first + 2].toTensor().numel() == 1;
  // index.Tensor has made its nonzero already, which was noted
  if (call.bool_index && !fills && call.name != "aten::index.Tensor_out") note("wait", call.name + " (boolean index)");
  kernel.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.adopt();
  const size_t outs = kernel.schema().returns().size();
  for (size_t i = stack->size() - outs; i < stack->size(); ++i) {
    IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = call.device(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list = value.toTensorVector();
      for (auto& t : list) t = call.device(t);
      value = IValue(c10::List<at::Tensor>(list));
    }
  }
}
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) { run_on_host(op, op, stack); }

c10::OperatorHandle find(const char* name) { return c10::Dispatcher::singleton().findSchemaOrThrow(name, ""); }
void convolution(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const auto kernel = find("aten::convolution");
  run_on_host(op, kernel, stack);
}
void convolution_backward(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const auto kernel = find("aten::convolution_backward");
  const at::Tensor grad = (*stack)[stack->size() - 10].toTensor();
  stack->insert(stack->end() - 7, IValue(std::vector<int64_t>{grad.size(1)}));  // bias_sizes
  run_on_host(op, kernel, stack);
}

// ---- the few operators that are not kernels ----
at::Tensor empty_memory_format(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                               std::optional<Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &ALLOCATOR, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}
at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &ALLOCATOR, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}
at::Tensor as_host(const at::Tensor& t) {
  return t.is_privateuseone() ? tensor_on(seen_as(t.storage(), Device(DeviceType::CPU), c10::GetCPUAllocator()),
                                          c10::DispatchKey::CPU, t)
                              : t;
}
at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool non_blocking) {
  if (self.numel() > 0 && self.device() != to.device()) {
    const std::string what = c10::str(self.dtype(), " ", self.sizes(), non_blocking ? " non_blocking" : "");
    note(self.is_cpu() ? "h2d" : "d2h", what);
  }
  at::Tensor host_to = as_host(to), host_self = as_host(self);
  host_to.copy_(host_self);
  return to;
}
at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}
at::Scalar local_scalar_dense(const at::Tensor& self) {
  note("item", c10::str(self.dtype()));
  return as_host(self).item();
}
const at::Tensor& resize_(const at::Tensor& self, c10::SymIntArrayRef sym, std::optional<at::MemoryFormat> format) {
  auto size = C10_AS_INTARRAYREF_SLOW(sym);
  auto* impl = self.unsafeGetTensorImpl();
  if (impl->sizes() != size) impl->set_sizes_contiguous(size);
  if (format.has_value() && *format != at::MemoryFormat::Preserve) impl->empty_tensor_restride(*format);
  resize_storage(self.storage(), (self.storage_offset() + impl->numel()) * self.element_size());
  return self;
}
at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source.storage());
  self.unsafeGetTensorImpl()->set_sizes_and_strides(source.sizes(), source.strides(), source.storage_offset());
  return self;
}
at::Tensor& set_storage_offset(at::Tensor& self, Storage source, int64_t offset, c10::IntArrayRef size,
                               c10::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source);
  std::vector<int64_t> strides(stride.begin(), stride.end());
  if (strides.size() != size.size()) {
    strides.assign(size.size(), 1);
    for (int64_t i = int64_t(size.size()) - 2; i >= 0; --i)
      strides[i] = strides[i + 1] * std::max<int64_t>(size[i + 1], 1);
  }
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, strides, offset);
  return self;
}
at::Tensor& set_storage(at::Tensor& self, Storage source) {
  const int64_t count = source.nbytes() / self.element_size();
  return set_storage_offset(self, source, 0, {count}, {});
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty_memory_format);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
  m.impl("resize_", resize_);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage_offset);
  // composite kernels in torch that a real device has its own for
  for (const char* name : {"native_group_norm", "native_layer_norm"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution>());
  m.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution_backward>());
}

// CUDA's autocast lists
using at::Tensor, at::Scalar, at::ScalarType, at::IntArrayRef;
#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FULL(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define FULL_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(FULL)
  AT_FORALL_FP32_SET_OPT_DTYPE(FULL_DTYPE)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(PROMOTE)
  KERNEL_PRIVATEUSEONE(stack, promote)
  KERNEL_PRIVATEUSEONE(cat, promote)
}

}  // namespace

extern "C" {

void strict_register() {
  c10::SetAllocator(KIND, &ALLOCATOR);
  at::RegisterPrivateUse1HooksInterface(new Hooks());
}

// Names end with a line feed each.
void strict_rules(const char* no_check, const char* no_cuda) {
  for (auto [names, set] : {std::pair{no_check, &NO_CHECK}, std::pair{no_cuda, &NO_CUDA}}) {
    std::istringstream lines(names);
    for (std::string name; std::getline(lines, name);) set->insert(name);
  }
}

void strict_listen(void (*listener)(const char*, const char*)) { LISTENER = listener; }
}
