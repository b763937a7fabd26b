// How requests come in from the kernel. ClassicTransport reads them from /dev/fuse; FUSE-over-io_uring is to be a
// second one. FuseServer and the file system cannot tell them apart.

/// A source of requests. It calls libfuse, which calls FuseServer's callbacks, on threads of its own.
protocol Transport: AnyObject, Sendable {
    /// Whether a reader is there for the next request. Another one may then wait for I/O, which spares a lone request
    /// the hop to another thread.
    var hasIdleReader: Bool { get }

    /// The request that libfuse calls a callback for. `reader` is what libfuse hands on as the process number (see
    /// `Request.accept`).
    func request(inHandOf reader: Int32) -> Request

    /// Requests that are read and not answered, and those being read.
    var liveRequestCount: Int { get }

    /// Has the kernel ask for an inode's attributes again.
    func invalidateAttributes(_ inode: InodeNumber)

    /// Has the kernel write back what it holds of a part of a file, and forget it. Waits for the WRITEs that this
    /// brings. So threads of the transport must not call it, nor those that finish other requests.
    func writeBack(_ inode: InodeNumber, _ range: Range<UInt64>)

    /// Begins to serve. Requests arrive from now on.
    func start() throws(Errno)

    /// Ends serving although the kernel has not: requests being handled are finished, none is begun.
    func stop()

    /// True when the kernel has ended the session, or `stop` has, and no thread handles requests any more.
    var isOver: Bool { get }
}
