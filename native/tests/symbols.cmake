# cmake -DNM=nm -DLIBRARY=libbitpress.so -DISA_OBJECTS=a.o,b.o -P symbols.cmake
#
# The library exports the C ABI alone. And no object of an ISA defines a weak symbol (an inline function or template
# that another file may define too): the linker keeps one of them, and a CPU without the ISA could get this one.
execute_process(COMMAND ${NM} -D --defined-only ${LIBRARY} OUTPUT_VARIABLE exported RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${NM} cannot read ${LIBRARY}")
endif()
string(REGEX MATCHALL "[^\n]+" exported "${exported}")
list(LENGTH exported before)
list(FILTER exported EXCLUDE REGEX " bp_[a-z0-9_]+$")
list(LENGTH exported foreign)
if(foreign GREATER 0)
  message(FATAL_ERROR "${LIBRARY} exports more than bp_*: ${exported}")
endif()

string(REPLACE "," ";" ISA_OBJECTS "${ISA_OBJECTS}")
foreach(object ${ISA_OBJECTS})
  execute_process(COMMAND ${NM} ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE status)
  string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
  list(FILTER symbols INCLUDE REGEX " [WVu] ")
  if(symbols OR NOT status EQUAL 0)
    message(FATAL_ERROR "${object} defines weak symbols: ${symbols}")
  endif()
endforeach()
