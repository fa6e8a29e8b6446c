// What this machine can do at most, for saying how near a kernel comes to it.
#pragma once

#include "kernels/numerics.h"

namespace bitpress {

// Runs `steps` steps of independent chains of fp32 multiply-adds in registers, as many as keep the ISA's units busy;
// the number of multiply-adds done.
using MultiplyAddsFn = size_t (*)(size_t steps);

namespace reference {
size_t MultiplyAdds(size_t steps);
}
namespace avx2 {
size_t MultiplyAdds(size_t steps);
}
namespace neondot {
size_t MultiplyAdds(size_t steps);
}
namespace avx512vnni {
size_t MultiplyAdds(size_t steps);
}
}  // namespace bitpress
