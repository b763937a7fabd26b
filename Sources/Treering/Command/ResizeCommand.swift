// `treering resize`: changes the capacity of a store, mounted or not.

import Glibc

enum ResizeCommand {
    static let usage = """
        treering resize MOUNTPOINT|STORE SIZE

        Makes a store larger or smaller, while it is mounted or not. A smaller one must hold what is used, and the reserve that lets a full
        store be emptied; what lies beyond is moved first. SIZE as in `--capacity`: 64M, 10G.
        """

    static func run(_ typed: [HostString]) throws(CommandError) -> Int32 {
        let operands = try Arguments(typed, []).operands("MOUNTPOINT or STORE", "SIZE")
        let (target, text) = (operands[0], operands[1])
        guard let byteCount = ByteSize.parse(text.description), byteCount >= 64 << 20, byteCount <= 1 << 50 else {
            throw CommandError("\(text): SIZE must be a size from 64M to 1024T")
        }
        let answer: ResizeAnswer
        if let mountPoint = try? MountedStore.mountPoint(target) {
            answer = try resize(mounted: mountPoint, target, byteCount)
        } else {
            answer = try resize(unmounted: target, byteCount)
        }
        switch answer {
        case .done(let capacity):
            print("\(target): the capacity is \(ByteSize.text(capacity)) now")
            return 0
        case .tooSmall(let least):
            throw CommandError(
                "\(target): it does not fit into \(ByteSize.text(byteCount)): what is used and the reserve need \(ByteSize.text(least)); nothing was changed"
            )
        case .failed(.noSpace):
            throw CommandError(
                "\(target): there is not enough room to move what lies beyond \(ByteSize.text(byteCount)); the capacity is as it was"
            )
        case .failed(.busy): throw CommandError("\(target): its capacity is being changed already")
        case .failed(let errno): throw CommandError("\(target): the capacity could not be changed: \(errno)")
        }
    }

    private static func resize(
        mounted mountPoint: HostString, _ target: HostString, _ byteCount: UInt64
    ) throws(CommandError) -> ResizeAnswer {
        let descriptor = mountPoint.openDirectory()
        guard descriptor >= 0 else { throw CommandError("\(target): \(Errno.last)") }
        defer { close(descriptor) }
        var numbers: (capacity: UInt64, least: UInt64) = (byteCount, 0)
        guard ioctl(descriptor, UInt(Control.resize), &numbers) == 0 else { return .failed(.last) }
        return numbers.least == 0 ? .done(capacity: numbers.capacity) : .tooSmall(least: numbers.least)
    }

    private static func resize(unmounted target: HostString, _ byteCount: UInt64) throws(CommandError) -> ResizeAnswer {
        let path = StoreDirectory.path(ofSource: target)
        guard try StoreDirectory.state(path) == .store else {
            throw CommandError("\(target): is neither a mounted Treering store nor a store")
        }
        let store = try OpenStore(existing: path, DeviceOptions())
        do throws(MountError) {
            let log = LogSink { StandardError.print("\(path): \($1)") }
            let volume = try HostVolume.mount(
                store.device, VolumeOptions(), directory: path, log: log, isServed: false)
            let answer = volume.resizeAndWait(to: byteCount)
            do throws(Errno) { try volume.unmount() } catch { throw MountError("the store cannot be closed", error) }
            return answer
        } catch {
            throw CommandError("\(path): \(error)")
        }
    }
}

extension Volume {
    private final class Box: @unchecked Sendable {
        var answer: ResizeAnswer?
    }

    /// Changes the capacity of a volume that has no housekeeper thread, and waits for the outcome.
    func resizeAndWait(to byteCount: UInt64) -> ResizeAnswer {
        let box = Box()
        housekeeper.resize(to: byteCount) { box.answer = $0 }
        while true {
            if let answer = box.answer { return answer }
            housekeeper.housekeep()
        }
    }
}
