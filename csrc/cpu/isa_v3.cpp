// x86-64-v3: AVX2 and FMA.  Standard headers come first: what they define must not use these instructions.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

#pragma GCC target("avx,avx2,fma,f16c,bmi,bmi2")
#define ND_ISA v3
#define ND_ISA_NAME "v3"
#define ND_VECTOR_BYTES 32
#include "all.h"
#endif
