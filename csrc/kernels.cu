// The CUDA side of kernels.h.  No torch header: raw pointers, sizes and a stream.  Nothing here allocates, copies to
// the host or waits, so that every operation can be captured into a CUDA graph.
#include "cuda/feature_loss.cuh"
#include "cuda/group_norm.cuh"
#include "cuda/group_norm_backward.cuh"
#include "cuda/guided_step.cuh"
#include "cuda/prepare_image.cuh"
