// Chooses among the compiled instruction sets once, when the first kernel is called.
#include <cstdlib>
#include <cstring>

#include "../kernels.h"

namespace nd {

namespace baseline {
extern const CpuKernels kernels;
}
#if defined(ND_X86_ISAS)
namespace v3 {
extern const CpuKernels kernels;
}
namespace v4 {
extern const CpuKernels kernels;
}
#endif

namespace {

bool allowed(const char* isa) {
  const char* wanted = std::getenv("NEURALDIFFUSER_ISA");
  return wanted == nullptr || *wanted == 0 || std::strcmp(wanted, isa) == 0;
}

const CpuKernels& choose() {
#if defined(ND_X86_ISAS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && allowed("v4")) return v4::kernels;
  if (avx2 && allowed("v3")) return v3::kernels;
#endif
  return baseline::kernels;
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace nd
