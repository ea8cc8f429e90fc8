// Every CPU kernel, for the instruction set that the including file has switched on.
// That file defines ND_ISA (a namespace), ND_ISA_NAME and ND_VECTOR_BYTES.
#include "../kernels.h"
#include "simd.h"

#include "feature_loss.h"
#include "group_norm.h"
#include "guided_step.h"
#include "prepare_image.h"

namespace nd {
namespace ND_ISA {

extern const CpuKernels kernels;
const CpuKernels kernels = {ND_ISA_NAME, feature_loss_grad,  guided_step, prepare_image, prepare_image_backward,
                            group_norm,  group_norm_backward};

}  // namespace ND_ISA
}  // namespace nd
