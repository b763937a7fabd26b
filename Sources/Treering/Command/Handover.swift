// What a serving process hands to its supervisor while it lives: the descriptor of /dev/fuse, how the session began,
// and shared memory. When it dies, a successor takes the kernel's connection over with these
// (docs/decisions/020-takeover.md).

import CLinux
import Glibc

/// A connection to the kernel that outlives its serving process, since the supervisor holds its descriptor too.
final class HeldConnection {
    let state: ConnectionState
    fileprivate(set) var descriptor: Int32 = -1
    fileprivate(set) var exchange: InitReply.Exchange?
    /// The mount's device number, as the kernel writes it ("0:45").
    fileprivate(set) var device: String?

    init(_ state: ConnectionState) { self.state = state }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Whether a successor can go on with it: the session has begun, and the kernel has not ended it (unmount, abort).
    var canBeTakenOver: Bool {
        guard descriptor >= 0, exchange != nil else { return false }
        var polled = pollfd(fd: descriptor, events: 0, revents: 0)
        return poll(&polled, 1, 0) >= 0 && polled.revents & Int16(POLLERR) == 0
    }
}

/// The serving process's end of what it tells its supervisor.
final class HandoverSender {
    private let socket: Int32

    /// The exit code of a successor that cannot go on with a connection. A new mount must then take its place.
    static let refusalCode: Int32 = 75

    fileprivate enum Word: UInt8 {
        case descriptor
        case exchange
        case device
        case ready
        case writable
    }

    fileprivate init(_ socket: Int32) { self.socket = socket }

    /// Hands over the descriptor of a connection that was just mounted.
    func send(descriptor: Int32) { send([Word.descriptor.rawValue], descriptor) }

    /// Hands over how the session began.
    func send(_ exchange: InitReply.Exchange) {
        let count = UInt16(exchange.request.count)
        send(
            [Word.exchange.rawValue, UInt8(truncatingIfNeeded: count), UInt8(count >> 8)] + exchange.request
                + exchange.reply, -1)
    }

    /// Hands over the device number of the mount.
    func send(device: String) { send([Word.device.rawValue] + device.utf8, -1) }

    /// Tells that the mount is usable.
    func sendReady() { send([Word.ready.rawValue], -1) }

    /// Tells that the mount, begun read-only, is writable now.
    func sendWritable() { send([Word.writable.rawValue], -1) }

    // Errors are ignored: a supervisor that is gone needs nothing.
    private func send(_ bytes: [UInt8], _ descriptor: Int32) { _ = linux_send(socket, bytes, bytes.count, descriptor) }
}

/// The supervisor's end.
final class HandoverReceiver {
    let socket: Int32
    private(set) var isReady = false
    private(set) var isWritable = false
    private(set) var isOpen = true

    /// Makes both ends. Close the child's end here once the child exists. Nil if the system gives no sockets.
    static func pair() -> (receiver: HandoverReceiver, sender: HandoverSender, senderSocket: Int32)? {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { return nil }
        return (HandoverReceiver(ends[0]), HandoverSender(ends[1]), ends[1])
    }

    private init(_ socket: Int32) { self.socket = socket }

    deinit { close(socket) }

    /// Receives all that has arrived. Call it once more after the sender has died: what it sent before is still there.
    func receive(into connection: HeldConnection?) {
        var bytes = [UInt8](repeating: 0, count: 4096)
        while isOpen {
            var descriptor: Int32 = -1
            let count = linux_receive(socket, &bytes, bytes.count, &descriptor)
            if count <= 0 {
                if count == 0 || errno != EAGAIN && errno != EINTR { isOpen = false }
                return
            }
            switch HandoverSender.Word(rawValue: bytes[0]) {
            case .descriptor where descriptor >= 0:
                if let connection, connection.descriptor < 0 {
                    connection.descriptor = descriptor
                } else {
                    close(descriptor)
                }
            case .exchange where count >= 3:
                let end = 3 + (Int(bytes[1]) | Int(bytes[2]) << 8)
                guard end <= count else { continue }
                connection?.exchange = InitReply.Exchange(
                    request: Array(bytes[3..<end]), reply: Array(bytes[end..<count]))
            case .device: connection?.device = String(decoding: bytes[1..<count], as: UTF8.self)
            case .ready: isReady = true
            case .writable: isWritable = true
            default: if descriptor >= 0 { close(descriptor) }
            }
        }
    }
}
