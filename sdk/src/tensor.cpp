#include <qmill/tensor.h>

#include <qmill/error.h>

namespace qmill {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::boolean:
      return at::ScalarType::Bool;
    case DType::u8:
      return at::ScalarType::Byte;
    case DType::i8:
      return at::ScalarType::Char;
    case DType::f8_e5m2:
      return at::ScalarType::Float8_e5m2;
    case DType::f8_e4m3:
      return at::ScalarType::Float8_e4m3fn;
    case DType::f8_e8m0:
      return at::ScalarType::Float8_e8m0fnu;
    case DType::i16:
      return at::ScalarType::Short;
    case DType::u16:
      return at::ScalarType::UInt16;
    case DType::f16:
      return at::ScalarType::Half;
    case DType::bf16:
      return at::ScalarType::BFloat16;
    case DType::i32:
      return at::ScalarType::Int;
    case DType::u32:
      return at::ScalarType::UInt32;
    case DType::f32:
      return at::ScalarType::Float;
    case DType::i64:
      return at::ScalarType::Long;
    case DType::u64:
      return at::ScalarType::UInt64;
    case DType::f64:
      return at::ScalarType::Double;
    case DType::c64:
      return at::ScalarType::ComplexFloat;
    case DType::f4:
    case DType::f6_e2m3:
    case DType::f6_e3m2:
      break;
  }
  throw Error(ErrorKind::unsupported, std::string(dtype_name(dtype)) + " tensors cannot be computed with",
              "they can only be copied as they are");
}

DType dtype_of(const at::Tensor& tensor) {
  for (int i = 0; i <= static_cast<int>(DType::c64); ++i)
    if (scalar_type(static_cast<DType>(i)) == tensor.scalar_type()) return static_cast<DType>(i);
  throw Error(ErrorKind::unsupported, std::string("no file type holds LibTorch's ") + c10::toString(tensor.scalar_type()));
}

TensorInfo info_of(const StoredTensor& tensor) { return {tensor.name, dtype_of(tensor.data), tensor.data.sizes().vec()}; }

}  // namespace qmill
