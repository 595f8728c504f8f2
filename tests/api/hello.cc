/* SPDX-License-Identifier: MIT */
/* hello.c as a C++ program would have it: the headers are C++, and owners free what they own. */
#include <algorithm>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <vector>

#include <dmcore.h>

static void check(int ret)
{
	if (ret)
		throw std::runtime_error(dmcore_error_message());
}

int main()
try {
	struct dmcore *made;
	check(dmcore_create(nullptr, &made));
	std::unique_ptr<dmcore, decltype(&dmcore_destroy)> core(made, dmcore_destroy);

	struct dmcore_device *device;
	check(dmcore_device_create_concise(core.get(), "hello,,,rw,0 8 zero", 0, &device));

	std::vector<char> buffer(8 * DMCORE_SECTOR_BYTES, '\xff');
	check(dmcore_pread(dmcore_device_bdev(device), buffer.data(), buffer.size(), 0));
	if (std::any_of(buffer.begin(), buffer.end(), [](char byte) { return byte != 0; }))
		throw std::runtime_error("the zero target reads something else");
	check(dmcore_device_remove(device));
	return 0;
} catch (const std::exception &error) {
	std::cerr << "hello: " << error.what() << '\n';
	return 1;
}
