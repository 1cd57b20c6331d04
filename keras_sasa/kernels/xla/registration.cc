// Registers the handlers with an XLA that does not look them up by name.

#include <cstdint>
#include <string>
#include <utility>

#include "keras_sasa/kernels/xla/handlers.h"
#include "xla/ffi/api/ffi.h"

// Registers all handlers with the XLA that `api` belongs to. Returns null, or
// an error message that stays valid.
extern "C" __attribute__((visibility("default"))) const char*
keras_sasa_register(const XLA_FFI_Api* api) {
  static std::string message;
  const std::pair<const char*, XLA_FFI_Handler*> handlers[] = {
      {"keras_sasa_forward", keras_sasa_forward},
      {"keras_sasa_backward", keras_sasa_backward},
      {"keras_sasa_projected", keras_sasa_projected},
      {"keras_sasa_block_forward", keras_sasa_block_forward},
      {"keras_sasa_block_pooled", keras_sasa_block_pooled},
      {"keras_sasa_block_backward", keras_sasa_block_backward},
      {"keras_sasa_normalize", keras_sasa_normalize}};
  for (const auto& [name, handler] : handlers) {
    XLA_FFI_Error* error =
        xla::ffi::Ffi::RegisterStaticHandler(api, name, "Host", handler);
    if (error == nullptr) continue;
    // Newer versions of XLA also write a code, after the message.
    struct {
      XLA_FFI_Error_GetMessage_Args arguments{};
      int64_t code = 0;
    } details;
    details.arguments.struct_size = sizeof(details);
    details.arguments.error = error;
    api->XLA_FFI_Error_GetMessage(&details.arguments);
    const char* text = details.arguments.message;
    message = text == nullptr ? "an error without a message" : text;
    XLA_FFI_Error_Destroy_Args destroy{};
    destroy.struct_size = XLA_FFI_Error_Destroy_Args_STRUCT_SIZE;
    destroy.error = error;
    api->XLA_FFI_Error_Destroy(&destroy);
    return message.c_str();
  }
  return nullptr;
}
