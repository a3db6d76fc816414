// Which instruction sets the vectorized files are compiled for; the best one for the processor is chosen at run time. To be included
// before HWY_TARGET_INCLUDE is defined.
#pragma once

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)  // nothing here gains from them
#endif
