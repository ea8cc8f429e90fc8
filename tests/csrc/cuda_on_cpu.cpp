// The kernels of csrc/kernels.cu as a library for ctypes, see cuda_on_cpu.h.
#include "../../csrc/kernels.cu"

extern "C" {

void set_machine(int device, int architecture, uint64_t seed, void* stream, int refusal) {
  cuda_on_cpu::machine = {architecture, seed, stream, 0, 0, device, cudaError_t(refusal)};
}
int launches() { return cuda_on_cpu::machine.launches; }
int largest_cluster() { return cuda_on_cpu::machine.largest_cluster; }

// sizes of the structs, for a check of the mirrors in Python
void struct_sizes(int64_t* sizes) {
  sizes[0] = sizeof(nd::FeatureLoss);
  sizes[1] = sizeof(nd::GuidedStep);
  sizes[2] = sizeof(nd::PrepareImage);
  sizes[3] = sizeof(nd::GroupNorm);
}

int64_t group_norm_workspace(const nd::GroupNorm* a) { return nd::group_norm_workspace(*a); }

#define ENTRY(name, Params) \
  const char* name(const nd::Params* a, void* stream) { return nd::name##_cuda(*a, stream); }
ENTRY(feature_loss_grad, FeatureLoss)
ENTRY(guided_step, GuidedStep)
ENTRY(prepare_image, PrepareImage)
ENTRY(prepare_image_backward, PrepareImage)
ENTRY(group_norm, GroupNorm)
ENTRY(group_norm_backward, GroupNorm)
}
