// The part of CUDA that csrc/kernels.cu uses, on one processor: every GPU thread is a fiber, every barrier a switch.
// Fibers run in an order drawn from a seed, anew between any two barriers: a kernel whose threads race through
// memory gives other bits with another seed.  Shared memory starts as NaN, has the size that the launch asked for, and
// turns to NaN again when its block ends, before the rest of its cluster does.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __syncthreads() cuda_on_cpu::wait_for_block(__LINE__)
#define threadIdx (cuda_on_cpu::now->thread_index)
#define blockIdx (cuda_on_cpu::now->block->index)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 gridDim, blockDim;  // of the launch that runs

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct { struct { unsigned x, y, z; } clusterDim; } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
struct cudaFuncAttributes { int ptxVersion; };

namespace cuda_on_cpu {

enum class State { ready, at_block, at_cluster, done };

struct Block {
  dim3 index;
  int rank, alive;  // alive: threads that have not ended
  std::vector<unsigned char> shared;
};

struct Fiber {
  ucontext_t context;  // to enter it first; then the quicker jump, except where a sanitizer watches the stacks
  jmp_buf jump;
  bool entered;
  dim3 thread_index;
  Block* block;
  State state;
  int line;  // of the barrier it waits at
};

constexpr size_t kStack = 64 << 10;

struct Launch {
  int cluster;
  std::function<void()> body;
};

// What a test sets and reads.
struct Machine {
  int architecture = 90;
  uint64_t seed = 0;  // 0: threads and blocks in order
  void* stream = nullptr;  // every launch must come on this one
  int launches = 0, largest_cluster = 0, device = 0;
  cudaError_t refusal = cudaSuccess;
};

inline Machine machine;
inline Launch launch;
inline Fiber* now = nullptr;
inline ucontext_t scheduler;
inline jmp_buf scheduler_jump;
#ifdef __SANITIZE_ADDRESS__
constexpr bool kJumps = false;
#else
constexpr bool kJumps = true;
#endif

[[noreturn]] inline void fail(const char* why) {
  fprintf(stderr, "cuda_on_cpu: %s\n", why);
  abort();
}

inline void pause(State state, int line) {
  now->state = state;
  now->line = line;
  if (!kJumps) {
    swapcontext(&now->context, &scheduler);
  } else if (_setjmp(now->jump) == 0) {
    _longjmp(scheduler_jump, 1);
  }
}

inline void resume(Fiber& fiber) {
  now = &fiber;
  if (!kJumps) {
    swapcontext(&scheduler, &fiber.context);
  } else if (_setjmp(scheduler_jump) == 0) {
    if (fiber.entered) _longjmp(fiber.jump, 1);
    fiber.entered = true;
    setcontext(&fiber.context);
  }
}

inline void wait_for_block(int line) { pause(State::at_block, line); }

inline void run_fiber() {
  launch.body();
  pause(State::done, 0);
}

inline std::vector<int> order(int n, std::mt19937_64& random) {
  std::vector<int> all(n);
  for (int i = 0; i < n; ++i) all[i] = i;
  if (machine.seed) std::shuffle(all.begin(), all.end(), random);
  return all;
}

// Lets the fibers [begin, end) go on if all of them wait at the same barrier.
inline bool release(std::vector<Fiber>& fibers, int begin, int end, State state) {
  for (int i = begin; i < end; ++i) {
    if (fibers[i].state != state) return false;
    if (fibers[i].line != fibers[begin].line) fail("threads of a block wait at different barriers");
  }
  for (int i = begin; i < end; ++i) fibers[i].state = State::ready;
  return true;
}

inline void poison(Block& block) { std::fill(block.shared.begin(), block.shared.end(), 0xff); }

inline void start_cluster(std::vector<Fiber>& fibers, std::vector<Block>& blocks, dim3 first, size_t shared) {
  static unsigned char* const stacks = new unsigned char[kStack * 8 * 1024];  // never touched, never in memory
  const int threads = int(blockDim.x);
  for (int b = 0; b < int(blocks.size()); ++b) {
    blocks[b] = {dim3(first.x + b, first.y, first.z), b, threads, std::vector<unsigned char>(shared, 0xff)};
  }
  for (int i = 0; i < int(fibers.size()); ++i) {
    Fiber& fiber = fibers[i];
    fiber.thread_index = dim3(unsigned(i % threads), 0, 0);
    fiber.block = &blocks[i / threads];
    fiber.state = State::ready;
    fiber.entered = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks + i * kStack;
    fiber.context.uc_stack.ss_size = kStack;
    makecontext(&fiber.context, run_fiber, 0);
  }
}

// Every thread that is ready goes on to its next barrier: block by block, in any order.
inline void run_to_barriers(std::vector<Fiber>& fibers, std::vector<Block>& blocks, std::mt19937_64& random) {
  const int threads = int(blockDim.x);
  for (int b : order(int(blocks.size()), random)) {
    for (int i : order(threads, random)) {
      Fiber& fiber = fibers[b * threads + i];
      if (fiber.state != State::ready) continue;
      resume(fiber);
      if (fiber.state == State::done && --blocks[b].alive == 0) poison(blocks[b]);
    }
  }
}

inline void run_cluster(std::vector<Fiber>& fibers, std::vector<Block>& blocks, std::mt19937_64& random) {
  const int threads = int(blockDim.x);
  for (bool moved = true; moved;) {
    run_to_barriers(fibers, blocks, random);
    moved = release(fibers, 0, int(fibers.size()), State::at_cluster);
    for (int b = 0; b < int(blocks.size()); ++b) {
      moved = release(fibers, b * threads, (b + 1) * threads, State::at_block) || moved;
    }
  }
  for (const Fiber& fiber : fibers) {
    if (fiber.state != State::done) fail("threads wait at a barrier that others never reach");
  }
}

inline cudaError_t run_grid(size_t shared) {
  if (gridDim.x % launch.cluster != 0 || blockDim.x > 1024 || shared > 48 << 10) return cudaErrorInvalidValue;
  if (launch.cluster > 1 && (machine.architecture < 90 || launch.cluster > 8)) return cudaErrorInvalidValue;
  std::vector<Fiber> fibers(size_t(blockDim.x) * launch.cluster);
  std::vector<Block> blocks(launch.cluster);
  std::mt19937_64 random(machine.seed);
  const int across = int(gridDim.x) / launch.cluster;
  for (int c : order(across * int(gridDim.y), random)) {
    start_cluster(fibers, blocks, dim3(unsigned(c % across * launch.cluster), unsigned(c / across), 0), shared);
    run_cluster(fibers, blocks, random);
  }
  return cudaSuccess;
}

}  // namespace cuda_on_cpu

template <class Args, class Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Args), Given&& given) {
  using namespace cuda_on_cpu;
  static_assert(sizeof(Args) <= 4096, "kernel arguments before CUDA 12.1");
  if (config->stream != machine.stream) fail("a launch on another stream");
  if (machine.refusal != cudaSuccess) return machine.refusal;
  const Args args = given;
  const int cluster = config->numAttrs ? int(config->attrs[0].val.clusterDim.x) : 1;
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  launch = {cluster, [&] { kernel(args); }};
  machine.launches += 1;
  machine.largest_cluster = std::max(machine.largest_cluster, cluster);
  return run_grid(config->dynamicSmemBytes);
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "invalid argument"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = cuda_on_cpu::machine.device, cudaSuccess; }
template <class F> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, F) {
  attributes->ptxVersion = cuda_on_cpu::machine.architecture;
  return cudaSuccess;
}

namespace nd {

template <class T> T* shared_memory() { return reinterpret_cast<T*>(cuda_on_cpu::now->block->shared.data()); }

struct Cluster {
  static int blocks() { return cuda_on_cpu::launch.cluster; }
  static int rank() { return cuda_on_cpu::now->block->rank; }
  static void sync() { cuda_on_cpu::pause(cuda_on_cpu::State::at_cluster, 0); }
  template <class T> static T* shared_of(T* mine, int rank) {
    Block* other = cuda_on_cpu::now->block + (rank - Cluster::rank());
    return reinterpret_cast<T*>(other->shared.data() + (reinterpret_cast<unsigned char*>(mine) - now_shared()));
  }

 private:
  using Block = cuda_on_cpu::Block;
  static unsigned char* now_shared() { return cuda_on_cpu::now->block->shared.data(); }
};

}  // namespace nd
