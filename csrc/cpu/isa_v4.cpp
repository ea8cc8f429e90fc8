// x86-64-v4: AVX-512.  Standard headers come first: what they define must not use these instructions.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

#pragma GCC target("avx,avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512cd")
#define ND_ISA v4
#define ND_ISA_NAME "v4"
#define ND_VECTOR_BYTES 64
#include "all.h"
#endif
