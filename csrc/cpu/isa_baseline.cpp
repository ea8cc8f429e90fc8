// For every processor that the compiler targets by default (SSE2 on x86-64, NEON on AArch64).
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#define ND_ISA baseline
#define ND_ISA_NAME "baseline"
#define ND_VECTOR_BYTES 16
#include "all.h"
