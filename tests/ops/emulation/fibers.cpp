#include "fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#error "the register switch is written for x86-64"
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves the registers that a call must preserve on this stack, notes where, and goes on from another stack.
extern "C" __attribute__((visibility("hidden"))) void emulation_switch_stack(void** save, void* load);
asm(R"(
.text
.type emulation_switch_stack, @function
.globl emulation_switch_stack
.hidden emulation_switch_stack
emulation_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch_stack, .-emulation_switch_stack
)");

namespace emulation {

namespace {

constexpr size_t STACK_BYTES = 64 << 10, PAGE = 4096;
constexpr int MAX_THREADS = 1024, LANES = 32;

enum class State { READY, AT_BARRIER, AT_WARP_OP, ENDED };

struct Fiber {
  void* stack = nullptr;  // where it goes on
  State state = State::READY;
  Site site;
  uint3 index;
  // of the barrier or warp operation that it waits at, then the result
  bool predicate = false;
  WarpOp op = WarpOp::SYNC;
  uint32_t mask = 0;
  int source = 0;
  uint64_t value = 0, result = 0;
};

struct Block {
  Fiber fibers[MAX_THREADS];
  int threads = 0, waiting = 0, ended = 0, current = 0;
  std::vector<int> ready;
  void* scheduler = nullptr;
  const std::function<void()>* kernel = nullptr;
  std::string error;
};

Block block;
std::mt19937 generator;

char* stacks() {
  static char* memory = [] {
    const size_t bytes = STACK_BYTES * MAX_THREADS;
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    char* first = static_cast<char*>(p);
    for (int i = 0; i < MAX_THREADS; ++i) mprotect(first + i * STACK_BYTES, PAGE, PROT_NONE);  // an overflow must crash
    return first;
  }();
  return memory;
}

Fiber& self() { return block.fibers[block.current]; }

void yield() { emulation_switch_stack(&self().stack, block.scheduler); }

std::string place(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

void entry() {
  (*block.kernel)();
  self().state = State::ENDED;
  ++block.ended;
  if (block.waiting > 0) fail("the kernel is left while others wait at a barrier; the last stop was", self().site);
  yield();
  __builtin_unreachable();
}

void start_fiber(int index) {
  Fiber& fiber = block.fibers[index];
  fiber = Fiber{};
  const unsigned i = unsigned(index);
  fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  void** top = reinterpret_cast<void**>(stacks() + (index + 1) * STACK_BYTES);
  *--top = nullptr;  // entry() begins as if called: 8 bytes off a multiple of 16
  *--top = reinterpret_cast<void*>(&entry);
  for (int r = 0; r < 6; ++r) *--top = nullptr;
  fiber.stack = top;
  block.ready.push_back(index);
}

void release(int index) {
  block.fibers[index].state = State::READY;
  block.ready.push_back(index);
}

// What the fibers wait for when none can go on.
std::string deadlock() {
  std::ostringstream text;
  text << "deadlock:";
  int listed = 0;
  for (int i = 0; i < block.threads && listed < 4; ++i) {
    const Fiber& f = block.fibers[i];
    if (f.state == State::ENDED) continue;
    text << " thread " << i << " waits at " << place(f.site) << (f.state == State::AT_BARRIER ? " (block)" : " (warp)");
    ++listed;
  }
  return text.str();
}

void run_block() {
  block.ready.clear();
  block.waiting = block.ended = 0;
  block.error.clear();
  for (int i = 0; i < block.threads; ++i) start_fiber(i);
  while (block.error.empty() && !block.ready.empty()) {
    const size_t pick = (uint64_t(generator()) * block.ready.size()) >> 32;
    block.current = block.ready[pick];
    block.ready[pick] = block.ready.back();
    block.ready.pop_back();
    threadIdx = self().index;
    emulation_switch_stack(&block.scheduler, self().stack);
  }
  if (block.error.empty() && block.ended < block.threads) block.error = deadlock();
  if (!block.error.empty()) throw std::runtime_error("emulated CUDA: " + block.error);
}

void finish_warp_op(int first, uint32_t mask) {
  uint32_t votes = 0;
  for (int i = 0; i < LANES; ++i) {
    if (mask >> i & 1 && block.fibers[first + i].value != 0) votes |= 1u << i;
  }
  for (int i = 0; i < LANES; ++i) {
    if (!(mask >> i & 1)) continue;
    Fiber& f = block.fibers[first + i];
    f.result = votes;
    if (f.op == WarpOp::SHUFFLE) {
      if (!(mask >> f.source & 1)) fail("a shuffle reads a lane that is not in the mask", f.site);
      f.result = block.fibers[first + f.source].value;
    } else if (f.op == WarpOp::MATCH) {
      f.result = 0;
      for (int j = 0; j < LANES; ++j) {
        if (mask >> j & 1 && block.fibers[first + j].value == f.value) f.result |= 1u << j;
      }
    }
  }
  for (int i = 0; i < LANES; ++i) {
    if (mask >> i & 1) release(first + i);
  }
}

}  // namespace

void launch(dim3 blocks, dim3 threads, const std::function<void()>& kernel) {
  const uint64_t per_block = uint64_t(threads.x) * threads.y * threads.z;
  if (per_block == 0 || per_block > MAX_THREADS) throw std::runtime_error("emulated CUDA: 1 to 1024 threads a block");
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) throw std::runtime_error("emulated CUDA: an empty grid");
  stacks();
  gridDim = blocks;
  blockDim = threads;
  block.threads = int(per_block);
  block.kernel = &kernel;
  std::vector<unsigned> order(size_t(blocks.x) * blocks.y * blocks.z);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), generator);
  for (unsigned b : order) {
    blockIdx = {b % blocks.x, b / blocks.x % blocks.y, b / (blocks.x * blocks.y)};
    run_block();
  }
}

int lane() { return block.current % LANES; }

void fail(const char* what, const Site& site) {
  block.error = std::string(what) + " (thread " + std::to_string(block.current) + ", " + place(site) + ")";
  yield();
  __builtin_unreachable();
}

int sync_block(bool predicate, const Site& site) {
  Fiber& me = self();
  me.predicate = predicate;
  me.site = site;
  me.state = State::AT_BARRIER;
  if (block.ended > 0) fail("a barrier that some threads have left the kernel without meeting", site);
  if (++block.waiting < block.threads) {
    yield();
    return int(me.result);
  }
  int count = 0;
  for (int i = 0; i < block.threads; ++i) {
    if (block.fibers[i].site.line() != site.line()) fail("threads of a block wait at different barriers", site);
    count += block.fibers[i].predicate;
  }
  block.waiting = 0;
  for (int i = 0; i < block.threads; ++i) {
    block.fibers[i].result = uint64_t(count);
    release(i);
  }
  yield();
  return int(me.result);
}

uint64_t warp(WarpOp op, uint32_t mask, uint64_t value, int source, const Site& site) {
  Fiber& me = self();
  me.op = op;
  me.mask = mask;
  me.value = value;
  me.source = source;
  me.site = site;
  me.state = State::AT_WARP_OP;
  const int first = block.current / LANES * LANES;
  if (!(mask >> lane() & 1)) fail("a warp operation without its own lane in the mask", site);
  bool complete = true;
  for (int i = 0; i < LANES; ++i) {
    if (!(mask >> i & 1)) continue;
    if (first + i >= block.threads) fail("a warp operation with lanes that the block does not have", site);
    const Fiber& other = block.fibers[first + i];
    if (other.state == State::ENDED) fail("a warp operation with lanes that have left the kernel", site);
    if (other.state != State::AT_WARP_OP) {
      complete = false;
    } else if (other.op != op || other.mask != mask || other.site.line() != site.line()) {
      fail("the lanes of a warp wait at different operations", site);
    }
  }
  if (complete) finish_warp_op(first, mask);
  yield();
  return me.result;
}

}  // namespace emulation

// The order of fibers and blocks from now on; for the tests.
extern "C" __attribute__((visibility("default"))) void emulation_seed(uint32_t seed) {
  emulation::generator.seed(seed);
}
